"""`mxopt-launch`, `mxopt-server keygen` and `status`, as processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Job, Process, environment


def launch(tmp_path: Path, *arguments: str) -> Process:
    return Process([*LAUNCH, "--run-dir", str(tmp_path / "run"), *arguments], environment())


def test_the_launchers_module_is_its_command_too() -> None:
    launcher = Process([sys.executable, "-m", "mxopt_server.launch", "--version"], environment())
    assert launcher.finish() == 0
    assert launcher.output.startswith("mxopt-launch ")


def test_launch_runs_a_job_and_keeps_its_logs(tmp_path: Path) -> None:
    process = launch(tmp_path, "-n", "2", "-s", "2", sys.executable, str(WORKERS), "half", "null")
    assert process.finish() == 0, process.output
    assert {"[worker-0] RESULT null", "[worker-1] RESULT null"} <= set(process.lines)
    names = {"scheduler.log", "server-0.log", "server-1.log", "worker-0.log", "worker-1.log", "state"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == names


def test_one_failing_worker_ends_the_job_with_its_error_and_exit_code(tmp_path: Path) -> None:
    script = (
        "import os, mxopt.kvstore as k\nkv = k.create('dist_sync')\n"
        "if kv.rank == 1: print('it breaks'); os._exit(199)\nkv.barrier()"
    )
    process = launch(tmp_path, "-n", "2", "-s", "1", sys.executable, "-c", script)
    assert process.finish(30) == 199, process.output
    assert "[worker-1] it breaks" in process.lines
    assert process.lines[-1].startswith("mxopt-launch: worker-1 failed with exit code 199")
    assert re.search(r"^mxopt-launch: the scheduler is at ipc://\S+/scheduler$", process.output, re.MULTILINE)


def test_ctrl_c_leaves_no_orphan(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    process = launch(tmp_path, "-n", "2", "-s", "1", sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}')
    process.wait_for("[worker-0] RUNNING")
    children = psutil.Process(process.child.pid).children(recursive=True)
    assert len(children) == 4
    process.child.send_signal(signal.SIGINT)
    assert process.finish(30) == 130
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (
            "ssh",
            [
                "ssh -o BatchMode=yes -tt 127.0.0.1 'cd",
                "-p 2222 localhost",
                "DMLC_NODE_HOST=127.0.0.1",
                "exec env",
            ],
        ),
        ("mpi", ["mpirun -n 2 --hostfile", "-x DMLC_ROLE=server", "-x DMLC_ROLE=worker", "train.py"]),
        ("slurm", ["srun --ntasks 2", "--kill-on-bad-exit=1", "DMLC_ROLE=worker", "train.py"]),
    ],
)
def test_command_lines_for_other_machines(tmp_path: Path, launcher: str, expected: list[str]) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1\n# a comment\nlocalhost:2222\n")
    arguments = [
        "-n",
        "2",
        "-s",
        "2",
        "--launcher",
        launcher,
        "-H",
        str(hosts),
        "--host",
        "127.0.0.2",
        "--insecure",
        "--dry-run",
    ]
    process = launch(tmp_path, *arguments, "python", "train.py")
    assert process.finish() == 0, process.output
    for text in (*expected, "DMLC_PS_ROOT_URI=127.0.0.2", "DMLC_NUM_WORKER=2", "--bind 0.0.0.0"):
        assert text in process.output


def test_keys_let_in_who_has_them_only(tmp_path: Path) -> None:
    keys = [tmp_path / "job.key", tmp_path / "other.key"]
    for path in keys:
        assert Process([*SERVE, "keygen", str(path)], environment()).finish() == 0
        assert os.stat(path).st_mode & 0o077 == 0
    with Job(1, 1, MXOPT_KVSTORE_KEYS=keys[0], MXOPT_KVSTORE_JOIN_TIMEOUT=20) as job:
        for stranger in ("", str(keys[1])):
            job.env |= {"MXOPT_KVSTORE_KEYS": stranger, "MXOPT_KVSTORE_JOIN_TIMEOUT": "1.5"}
            worker = job.start_worker(0, "half")
            assert worker.finish() != 0
            assert "doesn't answer" in worker.output
        job.env |= {"MXOPT_KVSTORE_KEYS": str(keys[0]), "MXOPT_KVSTORE_JOIN_TIMEOUT": "20"}
        job.run("half")


def test_other_addresses_need_keys(tmp_path: Path) -> None:
    process = Process([*SERVE, "--role", "scheduler", "--bind", "0.0.0.0", "--port", "0"], environment())
    assert process.finish() == 2
    assert "--keys" in process.output


def test_status_shows_a_running_job() -> None:
    with Job(1, 1) as job:
        job.start_worker(0, "forever", {"mode": "dist_sync"}).wait_for("RUNNING")
        command = [*SERVE, "status", "--scheduler", f"127.0.0.1:{job.port}"]
        process = job.start([*command, "--json"])
        assert process.finish() == 0, process.output
        found = json.loads(process.lines[0])
        assert found["state"] == "running"
        assert found["servers"][0]["keys"] == 1
        assert found["servers"][0]["bytes"] == 4000
        assert found["servers"][0]["updates"] > 0
        endpoint = next(node["endpoint"] for node in found["nodes"] if node["role"] == "server")
        local, _, address = endpoint.partition(" ")
        assert address == job.servers[0].endpoint
        assert local.startswith("ipc:///")
        shown = job.start(command)
        assert shown.finish() == 0
        assert "worker 0" in shown.output


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_its_launcher_says_what_to_install(tmp_path: Path) -> None:
    process = launch(tmp_path, "-n", "1", "--launcher", "ray", "--insecure", sys.executable)
    assert process.finish() == 2
    assert "pip install 'mxopt[ray]'" in process.output
