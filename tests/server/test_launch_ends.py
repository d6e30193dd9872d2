"""However a launched job ends, nothing hangs and nothing stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jobs import LAUNCH, SERVE, WORKERS, Process, environment
from mxopt_server import launchers
from mxopt_server.running import Launch
from mxopt_server.signals import signals

from mxopt.kvstore import messages as m

psutil = pytest.importorskip("psutil")

FOREVER = [sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}']
JOIN = "from mxopt import kvstore; kvstore.create('dist_sync');"


started: list[Process] = []


def launch(tmp_path: Path, *command: str, workers: int = 1) -> Process:
    options = ["-n", str(workers), "-s", "1", "--run-dir", str(tmp_path / "run")]
    started.append(Process([*LAUNCH, *options, *command], environment()))
    return started[-1]


@pytest.fixture(autouse=True)
def no_job_outlives_its_test() -> Iterator[None]:
    """A job ends with its launcher."""
    yield
    while started:
        if (process := started.pop()).child.poll() is None:
            process.kill()


def family(process: Process) -> Any:
    return psutil.Process(process.child.pid).children(recursive=True)


def none_stays(children: list[Any], seconds: float = 10) -> None:
    _, alive = psutil.wait_procs(children, seconds)
    alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    for p in alive:
        p.kill()
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_whole_job(tmp_path: Path, number: signal.Signals) -> None:
    process = launch(tmp_path, *FOREVER, workers=2)
    process.wait_for("[worker-1] RUNNING")
    children = family(process)
    assert len(children) == 4
    process.child.send_signal(number)
    assert process.finish(30) == 128 + number
    none_stays(children, 1)
    assert f"mxopt-launch: stopped by {number.name}" in process.lines


def test_the_job_ends_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    process = launch(tmp_path, *FOREVER, workers=2)
    process.wait_for("[worker-1] RUNNING")
    children = family(process)
    assert len(children) == 4
    process.child.kill()
    none_stays(children)
    process.finish()


def test_hangup_is_ignored_where_nohup_asks_for_it(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        JOIN + f"import os, time; print('HERE', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)"
    )
    options = ["-n", "1", "-s", "1", "--run-dir", str(tmp_path / "run")]
    process = Process(["nohup", *LAUNCH, *options, sys.executable, "-c", script], environment())
    process.wait_for("HERE")
    process.child.send_signal(signal.SIGHUP)
    go.touch()
    assert process.finish(30) == 0, process.output


def test_what_a_worker_leaves_behind_ends_with_the_job(tmp_path: Path) -> None:
    deaf = "from signal import *; signal(SIGTERM, SIG_IGN); print('DEAF', flush=True); import time; time.sleep(1000)"
    script = JOIN + (
        "import subprocess, sys; sleep = subprocess.Popen(['sleep', '1000'])\n"
        f"deaf = subprocess.Popen([sys.executable, '-c', {deaf!r}], stdout=subprocess.PIPE); deaf.stdout.readline()\n"
        "print('LEFT', sleep.pid, deaf.pid, flush=True)"
    )
    process = launch(tmp_path, sys.executable, "-c", script)
    left = [psutil.Process(int(pid)) for pid in process.wait_for("LEFT").split()[2:]]
    assert process.finish(30) == 0, process.output
    none_stays(left, 1)


def test_a_reader_that_goes_away_ends_the_job(tmp_path: Path) -> None:
    options = ["-n", "1", "-s", "1", "--run-dir", str(tmp_path / "run")]
    script = JOIN + "import time\nwhile True: print('x' * 1000, flush=True); time.sleep(0.001)"
    child = subprocess.Popen(
        [*LAUNCH, *options, sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    while b"xxx" not in child.stdout.readline():
        pass
    children = psutil.Process(child.pid).children(recursive=True)
    child.stdout.close()
    assert child.wait(30) == 128 + signal.SIGPIPE
    none_stays(children, 1)


def test_a_reader_that_stands_still_holds_the_job_up_but_not_its_end(tmp_path: Path) -> None:
    options = ["-n", "1", "-s", "1", "--run-dir", str(tmp_path / "run")]
    script = (
        JOIN
        + f"import os; open({str(tmp_path / 'pid')!r}, 'w').write('1')\nwhile True: os.write(1, b'x' * 999 + b'\\n')"
    )
    child = subprocess.Popen(
        [*LAUNCH, *options, sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE
    )
    log = tmp_path / "run" / "worker-0.log"
    size, end = -1, time.monotonic() + 60
    while not (tmp_path / "pid").exists() or size != log.stat().st_size:  # until nothing moves any more
        assert time.monotonic() < end, "the job didn't start, or its output never stood still"
        size = log.stat().st_size if log.exists() else -1
        time.sleep(0.3)
    children = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 128 + signal.SIGTERM
    none_stays(children, 1)
    assert child.stdout is not None
    child.stdout.close()


def test_a_second_signal_does_not_wait_for_who_is_deaf(tmp_path: Path) -> None:
    script = JOIN + (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('DEAF', flush=True); time.sleep(1e6)"
    )
    process = launch(tmp_path, sys.executable, "-c", script)
    process.wait_for("DEAF")
    children = family(process)
    start = time.monotonic()
    process.child.send_signal(signal.SIGINT)
    process.wait_for("stopped by SIGINT")
    process.child.send_signal(signal.SIGINT)
    assert process.finish(30) == 130
    assert time.monotonic() - start < 8
    none_stays(children, 1)


def test_a_full_disk_under_the_logs_does_not_end_the_job(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "worker-0.log").symlink_to("/dev/full")
    process = launch(tmp_path, sys.executable, "-c", JOIN + "[print(k, 'x' * 999, flush=True) for k in range(200)]")
    assert process.finish(30) == 0, process.output
    assert "worker-0.log can't be written" in process.output
    assert "No space left" in process.output
    assert len([line for line in process.lines if line.endswith("x" * 999)]) == 200


def test_a_line_of_ten_megabytes_passes_through(tmp_path: Path) -> None:
    script = JOIN + "import sys; sys.stdout.write('y' * 10_000_000); sys.stdout.flush(); print(); print('AFTER')"
    process = launch(tmp_path, sys.executable, "-c", script)
    assert process.finish(30) == 0, process.output
    assert sum(line.count("y") for line in process.lines if line.startswith("[worker-0]")) == 10_000_000
    assert process.lines[-1] == "[worker-0] AFTER"
    assert (tmp_path / "run" / "worker-0.log").read_text() == "y" * 10_000_000 + "\nAFTER\n"


def test_a_worker_that_is_stopped_is_named_and_ends_with_the_job(tmp_path: Path) -> None:
    process = launch(tmp_path, *FOREVER, workers=2)
    process.wait_for("[worker-1] RUNNING")
    children = family(process)
    worker = next(c for c in children if c.environ().get("DMLC_WORKER_ID") == "0")
    start = time.monotonic()
    worker.suspend()
    assert process.finish(30) == 1
    assert time.monotonic() - start < 3 + 8  # nobody waits until a stopped process listens
    assert "mxopt-launch: the job has failed: worker 0 (" in process.lines[-1]
    none_stays(children, 1)


def test_a_command_that_never_joins_does_not_keep_the_servers_waiting(tmp_path: Path) -> None:
    start = time.monotonic()
    process = launch(tmp_path, sys.executable, "-c", "print('HELLO')")
    assert process.finish(30) == 1
    assert time.monotonic() - start < 20
    assert "kvstore.create" in process.output


def test_output_after_the_end_of_its_process_is_kept(tmp_path: Path) -> None:
    script = JOIN + "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 0.3; echo LATE'])"
    process = launch(tmp_path, sys.executable, "-c", script)
    assert process.finish(30) == 0, process.output
    assert "[worker-0] LATE" in process.lines


@pytest.mark.parametrize(("role", "code", "failed"), [("server", -9, False), ("server", 1, True), ("worker", -9, True)])
def test_a_server_that_is_killed_after_the_workers_end_does_not_fail_the_job(
    role: str, code: int, failed: bool, tmp_path: Path
) -> None:
    with signals() as wake:
        job = Launch(tmp_path, wake, local=True)
        job.ended(launchers.Process(role, 0, ("true",), {}), code)
        assert (job.failed == (f"{role}-0", code)) == failed


def test_a_server_that_comes_back_to_a_job_that_has_finished_ends_well() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as scheduler:
        scheduler.linger = 0
        port = scheduler.bind_to_random_port("tcp://127.0.0.1")
        env = environment(DMLC_NUM_WORKER=1, DMLC_NUM_SERVER=1, DMLC_PS_ROOT_PORT=port, DMLC_SERVER_ID=0)
        server = Process([*SERVE, "--role", "server"], env)
        started.append(server)
        assert scheduler.poll(60_000)
        route, *frames = scheduler.recv_multipart()
        assert isinstance(m.decode(frames), m.Join)
        scheduler.send_multipart([route, *m.encode(m.Farewell())])
        assert server.finish() == 0, server.output


@pytest.mark.parametrize("another", [0, 1])
def test_an_asynchronous_job_goes_on_without_a_worker_and_its_exit_code_is_the_others(
    another: int, tmp_path: Path
) -> None:
    script = (
        "import os, signal, numpy as np, mxopt\n"
        "store = mxopt.kvstore.create('dist_async')\n"
        "store.set_optimizer(mxopt.create('sgd', learning_rate=1.0))\n"
        "store.init('w', np.zeros(2, np.float32))\n"
        "store.barrier()\n"
        "if store.rank: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.barrier()\n"
        "print('WENT ON', flush=True)\n"
        f"raise SystemExit({another})\n"
    )
    process = launch(tmp_path, sys.executable, "-c", script, workers=2)
    assert process.finish(60) == another, process.output
    assert "worker-1 failed: killed by SIGKILL; the job goes on without it" in process.output
    assert "[worker-0] WENT ON" in process.lines


def test_the_last_worker_of_an_asynchronous_job_may_fail_where_another_has_ended_well(tmp_path: Path) -> None:
    script = (
        "import pathlib, numpy as np, mxopt\n"
        "store = mxopt.kvstore.create('dist_async')\n"
        "over = pathlib.Path('over')\n"
        "store.barrier()\n"
        "if store.rank == 0:\n"
        "    store.close()\n"
        "    over.touch()\n"
        "else:\n"
        "    while not over.exists(): pass\n"
        "    raise ValueError('bad')\n"
    )
    process = launch(tmp_path, sys.executable, "-c", script, workers=2)
    assert process.finish(60) == 0, process.output
    assert "worker-1 failed with exit code 1; the job " in process.output
