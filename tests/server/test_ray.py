"""Jobs on a real Ray cluster of two nodes: launched, and beside workers that are tasks of the
program's own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Process, environment
from pasted import ROOT, blocks
from test_durability import JOB, ROUNDS, expected

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster

WORKER = (
    "import json, os; from mxopt import kvstore; store = kvstore.create('dist_sync'); store.barrier();"
    "seen = [store.rank, os.getcwd(), os.environ['ODD'], os.environ['RAY_RAYLET_PID']]; print('SAW', json.dumps(seen))"
)
FOREVER = [sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}']
DEADLINE_S = 180  # where the machine is busy, Ray takes a minute to start the processes of a job
PATIENT = environment(MXOPT_KVSTORE_JOIN_TIMEOUT=DEADLINE_S, MXOPT_KVSTORE_DEAD_AFTER=10)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PATIENT.items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        made.add_node(num_cpus=2)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "job.key"
    assert Process([*SERVE, "keygen", str(path)], environment()).finish() == 0
    return path


def on(cluster: Any) -> dict[str, str]:
    """The environment of a job's launcher there."""
    return {**PATIENT, "RAY_ADDRESS": cluster.address}


def launch(cluster: Any, tmp_path: Path, *arguments: str) -> Process:
    options = ["-n", "2", "-s", "2", "--launcher", "ray", "--run-dir", str(tmp_path / "run"), *arguments]
    return Process([*LAUNCH, *options], on(cluster))


def processes() -> list[Any]:
    """The servers and schedulers of this machine that serve beyond it, and workers of these
    tests."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "0.0.0.0" in line or str(WORKERS) in line[:2]:
            found.append(process)
    return found


def test_servers_and_workers_spread_over_the_nodes_with_folder_environment_and_logs(
    cluster: Any, tmp_path: Path
) -> None:
    odd = """it's "odd", $HOME & `id`"""
    process = launch(cluster, tmp_path, "--insecure", "--env", f"ODD={odd}", sys.executable, "-c", WORKER)
    assert process.finish(DEADLINE_S) == 0, process.output
    saw = sorted(json.loads(line.partition("SAW ")[2]) for line in process.lines if "SAW " in line)
    assert [seen[:3] for seen in saw] == [[rank, os.getcwd(), odd] for rank in range(2)]
    assert len({seen[3] for seen in saw}) == 2
    logs = {path.name: path.read_text() for path in (tmp_path / "run").glob("*.log")}
    assert logs.keys() == {"scheduler.log", "server-0.log", "server-1.log", "worker-0.log", "worker-1.log"}
    assert "server 1 INFO worker 0 is here" in logs["server-1.log"]


def test_ctrl_c_leaves_no_orphan_and_keys_stand_in_no_file_or_variable(
    cluster: Any, tmp_path: Path, keys: Path
) -> None:
    process = launch(cluster, tmp_path, "--keys", str(keys), *FOREVER)
    process.wait_for("[worker-0] RUNNING", DEADLINE_S)
    process.wait_for("[worker-1] RUNNING", DEADLINE_S)
    running = processes()
    assert len(running) == 5
    secret = keys.read_text().partition('secret-key = "')[2].partition('"')[0]
    for each in running:
        assert secret not in " ".join([*each.cmdline(), *each.environ().values()])
        assert each.environ()["MXOPT_KVSTORE_KEYS"] == "-"
    process.child.send_signal(signal.SIGINT)
    assert process.finish(DEADLINE_S) == 130
    assert not psutil.wait_procs(running, 15)[1]


def test_a_failing_worker_ends_the_job_with_its_exit_code(cluster: Any, tmp_path: Path) -> None:
    script = (
        "import os, mxopt.kvstore as k\nkv = k.create('dist_sync')\n"
        "if kv.rank == 1: print('it breaks', flush=True); os._exit(7)\nkv.barrier()"
    )
    process = launch(cluster, tmp_path, "--insecure", sys.executable, "-c", script)
    assert process.finish(DEADLINE_S) == 7, process.output
    assert "[worker-1] it breaks" in process.lines


def test_workers_may_be_tasks_of_the_programs_own_as_the_page_shows(cluster: Any, tmp_path: Path, keys: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(next(text for _, text in blocks(ROOT / "docs" / "cluster.md", "python") if "import ray" in text))
    done = Process([sys.executable, str(program)], on(cluster), cwd=tmp_path)
    assert done.finish(DEADLINE_S) == 0, done.output
    assert "[[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]" in done.lines
    assert "job" in (tmp_path / "run" / "scheduler.log").read_text()


def test_workers_of_a_program_hear_at_once_that_a_server_will_not_come_back(cluster: Any, tmp_path: Path) -> None:
    from mxopt_server.ray_servers import Servers

    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False, ignore_reinit_error=True)
    kept = ["--insecure", "--durability", "journal", "--restarts", "0", "--state-dir", str(tmp_path / "state")]
    with Servers(1, 1, *kept, run_dir=tmp_path / "run") as job:
        given = {**PATIENT, "MXOPT_KVSTORE_TIMEOUT": "600", **job.seat(0).variables}
        worker = Process(FOREVER, given)
        try:
            worker.wait_for("RUNNING", DEADLINE_S)
            servers = [p for p in processes() if p.environ()["DMLC_ROLE"] == "server"]
            servers[0].kill()
            assert worker.finish(DEADLINE_S) == 1
        finally:
            worker.kill()
    assert "won't come back: server-0 failed: killed by SIGKILL" in worker.output


@pytest.mark.parametrize("lost", ["server0", "actor0"])
def test_a_server_that_is_killed_comes_back_with_its_journal_and_the_job_has_the_same_bits(
    cluster: Any, tmp_path: Path, lost: str
) -> None:
    (tmp_path / f"kill-20-{lost}").touch()
    options = ["--insecure", "--durability", "journal", "--state-dir", str(tmp_path / "state")]
    process = launch(cluster, tmp_path, *options, sys.executable, str(JOB), str(ROUNDS), str(tmp_path))
    assert process.finish(DEADLINE_S) == 0, process.output
    assert "server-0 ended: killed by SIGKILL; it is started again" in process.output
    assert f"ENDED {expected()} 0" in process.output
    assert list(tmp_path.glob("kill-*")) == []
