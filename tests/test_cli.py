"""The command `mxopt`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mxopt
from mxopt import sparse
from mxopt.cli import main
from mxopt.document import dump_document, write_file


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mxopt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_info_names_what_a_report_needs() -> None:
    done = run("info", MXOPT_ENGINE="numpy", MXOPT_NUM_THREADS="3", DMLC_ROLE="server")  # and it runs no server
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in done.stdout.splitlines()}
    assert rows["mxopt"].startswith(mxopt.__version__)
    assert rows["numpy"] == np.__version__
    assert (rows["engine"], rows["threads"].split()[0], rows["DMLC_ROLE"]) == ("numpy", "3", "server")
    assert {"Python", "system", "llvmlite", "LLVM", "processor", "libzmq", "GPUs"} <= rows.keys()
    assert {"cupy", "prometheus-client", "ray", "torch"} <= rows.keys()  # of extras


def test_a_misspelt_variable_is_told_with_the_one_it_is_like() -> None:
    done = run("info", MXOPT_KVSTORE_TIMEOT="3", MXOPT_OWN="4")
    assert done.returncode == 0
    assert "no variable is called MXOPT_KVSTORE_TIMEOT: did you mean MXOPT_KVSTORE_TIMEOUT?" in done.stderr
    assert "MXOPT_OWN" not in done.stderr  # which may be anybody's


@pytest.mark.parametrize("name", ["MXOPT_ENGINE", "MXOPT_NUM_THREADS"])
def test_a_variable_that_can_not_be_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    done = run("info", **{name: "lvm"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mxopt: {name}='lvm': needs ")
    assert done.stderr.count("\n") == 1
    write_file(tmp_path / "states", dump_document({}))
    assert run("states", str(tmp_path / "states"), **{name: "lvm"}).returncode == 0  # which needs no engine
    assert run("--version", **{name: "lvm"}).returncode == 0


def test_states_lists_arrays_counts_and_the_optimizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    updater = mxopt.get_updater(mxopt.create("adam", learning_rate=0.25))
    updater("fc", np.ones((3, 2), np.float32), np.ones((3, 2), np.float32))
    path = tmp_path / "adam.states"
    write_file(path, updater.get_states(dump_optimizer=True))
    assert main(["states", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["states/fc/0", "float32", "(3,", "2)"] in lines
    assert ["counts/num_update", "1"] in lines
    assert ["optimizer/arguments/learning_rate", "0.25"] in lines
    assert ["arrays", "2,", "48", "bytes"] in lines


def test_states_that_are_kept_as_bytes_are_shown_and_other_bytes_begun(tmp_path: Path) -> None:
    updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
    updater("w", np.ones(3, np.float32), np.ones(3, np.float32))
    damaged = updater.get_states()[:-1]
    write_file(tmp_path / "x", dump_document({"of": updater.get_states(), "cut": damaged, "raw": bytes(99)}))
    done = run("states", str(tmp_path / "x"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["of/states/w"] == "float32 (3,)"
    assert rows["arrays"].startswith("1, ")
    assert rows["raw"] == f"99 bytes that begin with {bytes(16)!r}"
    assert "that begin with b'mxopt" in rows["cut"]


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    write_file(tmp_path / "x", dump_document({"größe": np.ones(1, np.float32)}))
    done = run("states", str(tmp_path / "x"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout


def test_no_name_in_a_file_or_of_one_writes_to_the_terminal_but_as_text(tmp_path: Path) -> None:
    write_file(tmp_path / "red\x1b[31m\nx", dump_document({"a\x1b[31m\nb": {"c\rd": np.ones(1, np.float32)}}))
    done = run("states", str(tmp_path / "red\x1b[31m\nx"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["a\\x1b[31m\\nb/c\\rd"] == "float32 (1,)"
    assert done.stdout.replace("\n", "").isprintable()
    done = run("states", str(tmp_path / "none\x1b[31m\nx"))
    assert done.stderr == f"mxopt: {tmp_path}/none\\x1b[31m\\nx: No such file or directory\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_read_as_a_file_is_and_an_endless_one_only_as_far_as_it_looks_like_states(tmp_path: Path) -> None:
    good = dump_document({"w": np.ones(1000, np.float32)})
    write_file(tmp_path / "x", good)
    shown = run("states", str(tmp_path / "x")).stdout.replace(str(tmp_path / "x"), "/dev/stdin")
    command = [sys.executable, "-m", "mxopt", "states", "/dev/stdin"]
    done = subprocess.run(command, input=good, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, shown, b"")
    done = subprocess.run([*command[:-1], "/dev/zero"], capture_output=True, timeout=60)
    assert (done.returncode, b"they begin with" in done.stderr) == (1, True)


def test_states_of_rows_are_listed_with_how_many_rows_they_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    updater = mxopt.get_updater(mxopt.create("adam"))
    table, rows = sparse.table((10**9, 4), init="uniform"), sparse.zeros("row_sparse", (100, 4))
    store = mxopt.kvstore.create("local")
    store.set_optimizer(mxopt.create("adam"))
    store.init("table", table)
    gradient = sparse.row_sparse_array((np.ones((2, 4), np.float32), [3, 60]), shape=(10**9, 4))
    store.push("table", gradient)
    store.save_optimizer_states(str(tmp_path / "table"), dump_optimizer=True)
    updater("rows", sparse.row_sparse_array((np.ones((1, 4), np.float32), [7]), shape=(100, 4)), rows)
    write_file(tmp_path / "rows", dump_document({"weight": rows, "states": updater.get_states()}))
    for name, shown in (
        ("table", "states/table/0  float32 (1000000000, 4), 2 rows of it"),
        ("rows", "weight  float32 (100, 4), 1 row of it"),
        ("rows", "states/states/rows/1  float32 (100, 4), 1 row of it"),
    ):
        assert main(["states", str(tmp_path / name)]) == 0
        lines = [re.sub("  +", "  ", line) for line in capsys.readouterr().out.splitlines()]
        assert shown in lines, lines


def test_states_loads_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "x", dump_document({"big": np.ones(1000, np.float32)}))
    monkeypatch.setattr(np, "frombuffer", None)
    assert main(["states", str(tmp_path / "x")]) == 0


def test_what_is_no_file_of_states_is_said_in_one_line(tmp_path: Path) -> None:
    good = dump_document({"w": np.ones(3)})
    for content, says in (
        (b"", "no mxopt states: 0 bytes"),
        (b"root:x:0:0" * 9, "they begin with b'root:x:0'"),
        (good[:-3], "checksum is wrong"),
        (good[:60], "cut off"),
    ):
        (tmp_path / "x").write_bytes(content)
        done = run("states", str(tmp_path / "x"))
        assert done.returncode == 1
        assert says in done.stderr
        assert done.stderr.startswith(f"mxopt: {tmp_path / 'x'}: ")
        assert len(done.stderr.splitlines()) == 1
    done = run("states", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, f"mxopt: {tmp_path / 'none'}: No such file or directory\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    write_file(tmp_path / "x", dump_document({"w": np.ones(3)}))
    for words in (["info"], ["states", str(tmp_path / "x")]):
        command = [sys.executable, "-m", "mxopt", *words]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (1, "mxopt: the output can't be written: No space left on device\n")


def test_version_and_unknown_commands() -> None:
    for words in (["--version"], ["info", "--version"], ["states", "--version"]):
        assert run(*words).stdout == f"mxopt {mxopt.__version__}\n"
    done = run("stats")
    assert done.returncode == 2
    assert "choose from" in done.stderr
