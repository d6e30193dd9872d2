"""The benchmark runs, its tables are complete, and its numbers mean what they say; the seconds
don't matter."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("psutil")

from benchmark import cases, driver, page, tables, targets, timing, touch
from benchmark.kvstore import table_memory
from benchmark.rows import OPTIMIZERS
from benchmark.systems import limit
from benchmark.worker import Worker

import mxopt

ROOT = Path(__file__).parents[1]
TINY = ["--systems", "mxopt,experimental,nn,limit", "--scale", "0.0002", "--seconds", "0.002", "--quick"]
ROWS = [f"{kind}/{optimizer}" for kind, names in cases.QUICK.items() for optimizer in names]


def bench(*arguments: object, module: str = "benchmark") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT}"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of mxopt and the limit writes."""
    file = tmp_path_factory.mktemp("bench") / "result.json"
    only = [x for row in ROWS for x in ("--only", row)]
    done = bench(*TINY, *only, "--json", file)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return {**found, "file": file}


def test_rows_are_of_every_registered_optimizer_and_touch_what_its_rule_does() -> None:
    registered = {n for n, c in mxopt.Optimizer.opt_registry.items() if c.__module__.startswith("mxopt.optimizer.")}
    assert registered - {row.name for row in OPTIMIZERS.values()} == {"ccsgd"}  # another's name
    for name, passes in {
        "nag-momentum": ("wga > wa",), "test": ("wg > wa",), "groupadagrad": ("wg > w",),
        "lans": ("g >", "wgab > ab", "wgab > w"), "adafactor": ("g >", "wg >", "wg > w"),
    }.items():  # fmt: skip
        assert OPTIMIZERS[name].passes == passes
    chosen = {name for names in (*cases.SOME.values(), *cases.QUICK.values()) for name in names}
    assert chosen <= set(OPTIMIZERS)


def test_resnet50_has_its_shapes() -> None:
    shapes = cases.resnet50()
    assert len(shapes) == 161
    assert sum(map(math.prod, shapes)) == 25_557_032


def test_every_row_is_measured_beside_its_limit(result: dict[str, Any]) -> None:
    rows = [driver.make_result(row) for row in result["rows"]]
    assert [f"{row.kind}/{row.optimizer}" for row in rows] == sorted(ROWS, key=_order)
    for row in rows:
        assert not row.failures, row
        assert {"mxopt", row.reference} <= set(row.systems), row
        assert (row.ratio("mxopt") or 0) > 0, row


def _order(name: str) -> tuple[int, int]:
    kind, optimizer = name.split("/")
    return list(cases.KINDS).index(kind), cases.QUICK[kind].index(optimizer)


def test_a_result_becomes_markdown_and_a_picture(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    done = bench("--from", result["file"], "--markdown", page, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert "### One tensor of 25M float32 (ms)" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_the_page_has_peers_in_every_panel_and_says_where_and_when(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = Path(__file__).parent.parent / "docs" / "performance.md"
    text = source.read_text()
    found = page.ratios(text)
    first = re.findall(r"^\| adam .* (\d+\.\d\d) \| [^|]*\|$", text, re.MULTILINE)[0]
    assert found["dense"]["adam"]["mxopt"] == float(first)
    assert found["dense"]["adam"]["pytorch"] > 0.5
    assert re.search(r"core.*; \d{4}-\d\d-\d\d, commit \w+", page.about(text))
    picture = tmp_path / "page.svg"
    done = bench("--from", source, "--plot", picture)
    assert (done.returncode, done.stderr) == (0, "")
    drawn = "".join(re.findall(r"<!-- (.*?) -->", picture.read_text()))
    panels = drawn.count("limit of memory")
    assert panels >= 7
    measured = re.findall(r"^Measured \S+ at commit \S+: (.+?)\.\s", text, re.MULTILINE | re.DOTALL)
    machines = {" ".join(where.split()) for where in measured}
    assert {line.partition("; ")[0] for line in page.about(text).splitlines()} == machines
    assert len(page.about(text).splitlines()) == len(machines)
    assert [line for line in page.about(text).splitlines() if line not in drawn] == []
    shown = [kind for kind, rows in found.items() if any("mxnet" in row for row in rows.values())]
    assert panels == len([kind for kind in shown if kind != "startup"])


def row(kind: str, optimizer: str, remarks: tuple[str, ...] = (), **milliseconds: list[float]) -> driver.Result:
    systems = {n: driver.Times({"only": [x / 1e3 for x in times]}) for n, times in milliseconds.items()}
    return driver.Result(kind, optimizer, systems=systems, remarks=list(remarks))


def test_ratios_compare_times_of_the_same_round() -> None:
    slow_then_fast = row("dense", "adam", mxopt=[14, 14, 7, 7, 7], limit=[10, 10, 5, 5, 5])
    assert slow_then_fast.ratio("mxopt") == pytest.approx(1.4)


def test_the_best_way_counts() -> None:
    times = driver.Times({"slow": [2.0, 2.0], "fast": [1.0, None]})
    assert (times.way, times.median) == ("fast", 1.0)


def test_a_target_is_missed_by_its_worst_row() -> None:
    rows = [row("dense", "adam", mxopt=[5.2], limit=[5.0]), row("dense", "sgd", ("stolen",), mxopt=[3.0], limit=[2.0])]
    verdict = targets.check(rows)[0]
    assert [r.optimizer for _, r in verdict.missed] == ["sgd"]
    assert tables.verdicts([verdict]).rows[0][2:] == ["sgd 1.50 ×", "missed by 1 of 2", "disturbed: sgd"]


def test_a_target_nobody_measured_is_neither_met_nor_missed() -> None:
    assert all(not verdict.missed and not verdict.values for verdict in targets.check([]))


def test_the_parameter_server_is_measured_beside_its_floor(tmp_path: Path) -> None:
    found, page = tmp_path / "found.json", tmp_path / "page.md"
    wanted = ["--quick", "--setup", "2x1-sync", "--case", "latency", "small"]
    done = bench(*wanted, "--json", found, "--markdown", page, module="benchmark.kvstore")
    assert done.returncode == 0, done.stderr
    rows = json.loads(found.read_text())["setups"]["2x1-sync"]
    assert [(row["case"], row["way"]) for row in rows] == [
        (case, way) for case in ("latency", "small") for way in ("pushpull", "push, pull")
    ]
    for row in rows:
        assert row["ms"] > row["floor_ms"] / 2 > 0
        assert row["ratio"] == pytest.approx(row["ms"] / row["floor_ms"], rel=1)
        assert row["same_ratio"] == pytest.approx(row["ms"] / row["same_ms"], rel=1)
        assert row["server_peak_mib"] > 10
        assert row["server_cpu_ms"] > 0
    assert "### 2 workers, 1 server, dist_sync" in page.read_text()


def test_the_limit_is_the_best_of_all_schemes(result: dict[str, Any]) -> None:
    rows = {f"{row['kind']}/{row['optimizer']}": driver.make_result(row) for row in result["rows"]}
    for name in ("dense/adam", "resnet50/adam", "float16/adam", "narrow/adam", "clipped/adam"):
        tried = rows[name].systems["limit"].trials
        assert set(touch.SCHEMES) <= set(tried), name
        compared = rows[name].systems["limit"].rounds
        assert set(compared) <= set(tried)
        assert min(tried, key=tried.__getitem__) in compared, name
    assert {way.partition(",")[0] for way in rows["tiny/adam"].systems["limit"].trials} == {"C", "engine"}
    several = driver.Times({"ranges": [2.0, 1.0, 2.0], "engine": [1.5, 1.5, 1.5]})
    assert driver.Result("dense", "adam", systems={"limit": several}).ratios("limit") == [1, 1, 1]
    assert several.way == "engine"


def test_a_turn_ends_when_no_thread_works_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which threads go on working for 7 ms."""
    now, looks = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        looks.append(now[0])

    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "process_time", lambda: min(now[0], 7e-3))
    monkeypatch.setattr(timing, "sleep", sleep)
    timing.still()
    assert 7e-3 < looks[-1] < 7e-3 + 2 * timing.STILL + 1e-9
    now[0] = 0.0
    monkeypatch.setattr(timing, "process_time", lambda: now[0])
    timing.still(within=0.1)
    assert looks[-1] == pytest.approx(0.1, abs=timing.STILL)


def test_nothing_is_answered_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class System:
        COMPARED = 2  # which are made again, where they haven't been kept

        @staticmethod
        def ways(case: cases.Case) -> list[str]:
            return ["one", "another"]

        @staticmethod
        def build(case: cases.Case, way: str) -> timing.Job:
            return timing.Job(lambda: events.append("step"))

    monkeypatch.setattr("benchmark.timing.still", lambda: events.append("still"))
    monkeypatch.setattr("benchmark.worker.still", lambda: events.append("still"), raising=False)
    for compared in (2, 1):
        System.COMPARED = compared
        worker = Worker(System)
        case = cases.Case("dense", "adam", OPTIMIZERS["adam"], ((3,),))
        worker.prepare(case.plain(), 1e-4)
        assert events[-1] == "still"
        worker.measure(1e-4)
        assert events[-1] == "still"


@pytest.mark.parametrize("name", touch.SCHEMES)
@pytest.mark.parametrize("master", [False, True])
def test_every_scheme_touches_all_elements_and_changes_none(name: str, master: bool) -> None:
    kind, dtype = ("float16", "float16") if master else ("dense", "float32")
    case = cases.Case(kind, "adam", OPTIMIZERS["adam"], ((300, 64), (77,)), dtype)
    arrays = limit.arrays_of(case)
    before = {x: [a.copy() for a in tensors] for x, tensors in arrays.items()}
    for reads, writes in case.passes:
        one = touch.Pass(case, reads, writes, arrays, 2, touch.SCHEMES[name])
        one.run()
        for x, tensors in arrays.items():
            for a, b in zip(tensors, before[x], strict=True):
                if x != "w" or not master:  # of 16 bits, which are written as whole numbers
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in touch.SCHEMES if name != "streaming"])
def test_the_loop_in_c_gives_the_bits_of_the_rule(name: str, rng: np.random.Generator) -> None:
    case = cases.Case("dense", "adam", OPTIMIZERS["adam"], ((300, 64),))
    arrays = {x: [np.abs(rng.standard_normal((300, 64))).astype(np.float32)] for x in "wgab"}
    weight, mean, var = (arrays[x][0].copy() for x in "wab")
    loop = touch.Pass(case, "wgab", "wab", arrays, 2, touch.SCHEMES[name], "adam")
    adam = mxopt.create("adam", learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8)
    adam.update(0, weight, arrays["g"][0], (mean, var))
    loop.numbers[5] = adam.scalars(0, 1e-3, 1)[0]
    loop.run()
    for x, a in (("w", weight), ("a", mean), ("b", var)):
        assert arrays[x][0].tobytes() == a.tobytes(), x


def test_the_memory_of_servers_follows_the_rows_of_a_table() -> None:
    """The smaller form of `scripts/bench kvstore-memory`: what servers have beside an interpreter
    and its buffers."""
    found = table_memory.measure(rows=150_000, optimizer="adam", draw=5_000)
    assert found["rows"] >= 150_000
    for server in found["servers"]:
        assert server["need"] > 50 << 20
        assert server["resident"] - server["at_first"] < 1.3 * server["need"]
        assert server["peak"] - server["at_first"] < 1.6 * server["need"]


def test_curves_of_both_dtypes_stand_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    picture = tmp_path / "curves.svg"
    done = bench("--seeds", 2, "--share", 0.01, "--plot", picture, module="benchmark.curves")
    assert done.returncode == 0, done.stderr
    _, _, *lines = done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == [
        "Adam, digits", "Adam, factors", "Adam, characters", "momentum, digits", "momentum, factors",
        "momentum, characters",
    ]  # fmt: skip
    assert all(abs(float(line.split("|")[4]) - 1) < 0.01 for line in lines)
    assert re.search(r"<!-- .* cores; \d{4}-\d\d-\d\d, commit \w+", picture.read_text())
