"""What a server imports: all before it takes a message, and from the current folder only where
`--import` asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import LAUNCH, SERVE, Job, environment

WATCH = """
import sys

def serving():
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name not in ("_serve", "run_scheduler"):
        frame = frame.f_back
    return frame is not None and "received" in frame.f_code.co_names

def hook(event, arguments):
    if event == "import" and serving():
        print("IMPORTED", arguments[0], flush=True)

sys.addaudithook(hook)
"""
WORKER = """
import sys, numpy as np, mxopt
from mxopt import sparse
store = mxopt.kvstore.create("dist_sync")
store.set_optimizer(mxopt.create(sys.argv[1], learning_rate=0.1, multi_precision=True))
w = np.ones((3, 2), np.float16)
store.init("w", w)
store.pushpull("w", w, out=w)
store.push("w", sparse.RowSparse(w[:1], np.array([1]), (3, 2)))
try:
    store.push("w", w, priority=0)
    store.init("w", w)
except mxopt.errors.MXOptError:
    pass
store.save_optimizer_states(sys.argv[2])
store.load_optimizer_states(sys.argv[2])
"""


@pytest.mark.parametrize("optimizer", ["sgd", "lamb", "adam", "dcasgd"])
def test_a_server_imports_nothing_for_a_message(tmp_path: Path, optimizer: str) -> None:
    (tmp_path / "watch.py").write_text(WATCH)
    path = environment()["PYTHONPATH"] + os.pathsep + str(tmp_path)
    more = ("--import", "watch", "--snapshot", str(tmp_path / "snapshot"))
    with Job(1, 1, more, fresh=True, PYTHONPATH=path) as job:
        worker = job.start([sys.executable, "-c", WORKER, optimizer, str(tmp_path / "states")], DMLC_ROLE="worker")
        command = [*SERVE, "status", "--json", "--scheduler", f"127.0.0.1:{job.port}"]
        assert worker.finish() == 0, worker.output
        assert job.start(command).finish() in (0, 1)
        job.ended()
    assert not [line for line in job.servers[0].lines if "IMPORTED" in line]


def test_a_module_of_the_current_folder_is_not_taken_for_another(tmp_path: Path) -> None:
    for name in ("resource", "msgspec", "zmq", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    for more in ((), ("--import", "json")):
        command = [*SERVE, "--role", "server", "--scheduler", "127.0.0.1:1", *more]
        env = environment(MXOPT_KVSTORE_JOIN_TIMEOUT=0.5)
        found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert "doesn't answer" in found.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 always looks there for what -m names")
def test_no_file_of_the_current_folder_is_run_in_the_place_of_a_server(tmp_path: Path) -> None:
    (tmp_path / "mxopt_server.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "joins.py"
    script.write_text("from mxopt import kvstore\nkvstore.create('dist_sync').barrier()")
    command = [LAUNCH[0], "-P", *LAUNCH[1:], "-n", "1", "-s", "1", "--durability", "none", sys.executable, str(script)]
    found = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr
    env = environment(DMLC_ROLE="server", MXOPT_KVSTORE_JOIN_TIMEOUT=0.5, DMLC_PS_ROOT_PORT=1)
    found = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "doesn't answer" in found.stderr


def test_a_module_of_the_current_folder_is_imported_where_asked(tmp_path: Path) -> None:
    (tmp_path / "of_my_own.py").write_text("print('IMPORTED', flush=True)")
    env = environment(MXOPT_KVSTORE_JOIN_TIMEOUT=0.5)
    command = [*SERVE, "--role", "server", "--scheduler", "127.0.0.1:1", "--import", "of_my_own"]
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "IMPORTED" in found.stdout


def test_processes_of_a_job_start_without_asyncio() -> None:
    """Which takes a fifth of a start, and comes with some of pyzmq's modules."""
    look = (
        "import sys, mxopt.kvstore.dist, mxopt_server.loop; print([m for m in ('asyncio', 'ssl') if m in sys.modules])"
    )
    command = [sys.executable, "-c", look]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_only_servers_of_a_job_load_a_compiler() -> None:
    with Job(1, 1, fresh=True) as job:
        processes = {process.endpoint: process for process in (job.scheduler, *job.servers)}  # which listen
        maps = [Path(f"/proc/{process.child.pid}/maps").read_text() for process in processes.values()]
    assert ["libllvmlite" in each for each in maps] == [False, True]
