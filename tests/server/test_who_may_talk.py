"""Who may take part in a job: its owner's processes through Unix sockets, holders of its keys, and
nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Job, Process, environment

from mxopt.errors import ArgumentError
from mxopt.kvstore import unix
from mxopt.kvstore.keys import load_keys
from mxopt.kvstore.loans import Loans

psutil = pytest.importorskip("psutil")

FOREVER = [sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}']
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class Launched(Process):
    """A launcher, and the endpoint of its scheduler."""

    root = ""


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    """A job on this machine with 2 workers and 1 server that trains."""
    options = ["-n", "2", "-s", "1", "--run-dir", str(tmp_path / "run")]
    process = Launched([*LAUNCH, *options, *FOREVER], environment())
    try:
        process.root = process.wait_for("the scheduler is at").split()[5].rstrip(",")
        process.wait_for("[worker-1] RUNNING")
        yield process
    finally:
        process.child.terminate()
        process.finish()


def children(process: Process) -> Any:
    return psutil.Process(process.child.pid).children(recursive=True)


def stranger(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as another user, who has imported all that is needed."""
    imports = "import locale, os, socket, sys, zmq, mxopt.kvstore.dist, mxopt_server.attached, mxopt_server.cli"
    become = f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    command = [sys.executable, "-c", f"{imports}, mxopt_server.preload; {become}\n{code}", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, cwd="/", timeout=60)


def test_a_job_on_one_machine_opens_no_port(launched: Launched) -> None:
    assert [c for p in children(launched) for c in p.net_connections("inet")] == []
    folder = unix.path_of(launched.root).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.name.partition("-")[0] for p in folder.iterdir()} == {"scheduler", "server"}
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.iterdir())
    assert "@" not in "".join(
        c.laddr for p in children(launched) for c in p.net_connections("unix") if "mxopt" in c.laddr
    )


def test_its_owner_asks_it_how_it_stands(launched: Launched) -> None:
    found = subprocess.run(
        [*SERVE, "status", "--json", "--scheduler", launched.root], env=environment(), capture_output=True, text=True
    )
    assert json.loads(found.stdout)["state"] == "running"
    assert json.loads(found.stdout)["servers"][0]["keys"] == 1


def test_nothing_of_it_stays_in_the_folder_for_temporary_files(launched: Launched) -> None:
    folder = unix.path_of(launched.root).parent
    everyone = children(launched)
    launched.child.kill()  # even then
    psutil.wait_procs(everyone, 10)
    assert not (folder / "scheduler").exists()


@as_root
def test_another_user_cannot_read_push_evict_or_become_a_server(launched: Launched) -> None:
    folder = unix.path_of(launched.root).parent
    paths = [str(p) for p in folder.iterdir()]
    code = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except PermissionError:
        print("refused")
"""
    assert stranger(code, *paths).stdout.split() == ["refused"] * len(paths)
    join = "from mxopt import kvstore; kvstore.create('dist_sync')"
    assert "ArgumentError" in stranger(f"os.environ['DMLC_PS_ROOT_URI'] = {launched.root!r}\n{join}").stderr
    serve = f"import sys; sys.argv[1:] = ['--role', 'server', '--rank', '0', '--scheduler', {launched.root!r}]\n"
    assert "mxopt-server:" in stranger(serve + "from mxopt_server.cli import main; sys.exit(main())").stderr
    look = "import os, sys\nfor p in sys.argv[1:]:\n  for f in ('environ', 'mem'):\n    open(f'/proc/{p}/{f}')"
    assert "PermissionError" in stranger(look, str(children(launched)[0].pid)).stderr
    launched.child.terminate()  # it still runs, with nobody evicted
    assert launched.finish() == 143


@as_root
def test_another_user_cannot_open_the_memory_that_processes_lend() -> None:
    loans = Loans()
    code = f"from mxopt.kvstore.loans import Loans; Loans(bytes.fromhex('{loans.offer().hex()}'))"
    assert "PermissionError" in stranger(code).stderr


@as_root
def test_who_waits_in_the_place_of_a_scheduler_is_not_believed(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"mxopt-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        os.chown(folder, NOBODY, NOBODY)
        with pytest.raises(ArgumentError, match="nobody else"):
            unix.check(f"ipc://{folder}/scheduler")
        folder.chmod(0o700)  # root can enter, but who has made it could put another socket there
        with pytest.raises(ArgumentError, match="nobody else"):
            unix.make_folder(f"ipc://{folder}/server-1")
        (folder / "server-1").touch()
        assert unix.choose(f"ipc://{folder}/server-1 tcp://here:1") == "tcp://here:1"
        unix.check(f"ipc://{folder}/scheduler")  # whose job root may look at, where it says so
    finally:
        (folder / "server-1").unlink(missing_ok=True)
        folder.rmdir()


def test_a_socket_where_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    env = environment(DMLC_PS_ROOT_URI=f"ipc://{folder}/s")
    for command in ([*SERVE, "--role", "scheduler"], [*SERVE, "--role", "server"], [*SERVE, "status"]):
        found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert found.returncode == 2
        assert "chmod 700" in found.stderr


@pytest.mark.parametrize("uri", ["ipc://@name", "ipc://relative", "ipc:///" + "x" * 99])
def test_a_socket_without_an_owner_or_too_long_is_refused(uri: str) -> None:
    with pytest.raises(ArgumentError, match="ipc"):
        unix.check(uri)


def test_a_job_by_hand_through_a_unix_socket_needs_no_port() -> None:
    path = unix.job_folder() / "scheduler"
    with Job(1, 2, DMLC_PS_ROOT_URI=f"ipc://{path}") as job:
        job.run("half")
        assert job.ended() == [0, 0, 0]
    assert not path.parent.exists()


def test_two_schedulers_cannot_have_one_socket(tmp_path: Path) -> None:
    path = unix.job_folder() / "scheduler"
    command = [*SERVE, "--role", "scheduler"]
    env = environment(DMLC_PS_ROOT_URI=f"ipc://{path}")
    first = Process(command, env)
    first.wait_for("listening on")
    second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "another process listens there" in second.stderr
    first.kill()  # and leaves its socket behind
    first.finish()
    third = Process(command, env)
    third.wait_for("listening on")
    third.child.terminate()
    third.finish()
    assert not path.parent.exists()


def test_processes_on_a_loopback_port_warn_and_offer_unix_sockets() -> None:
    with Job(1, 1) as job:
        for process in (job.scheduler, *job.servers):
            assert "WARNING any user of this machine" in process.wait_for("it has no keys")
        worker = job.start_worker(0, "forever", {"mode": "dist_sync"})
        worker.wait_for("RUNNING")
        ports = [c for c in psutil.Process(worker.child.pid).net_connections("tcp") if c.raddr]
        assert {c.raddr.port for c in ports} == {int(job.port)}  # the scheduler's; the server by its Unix socket


def test_with_keys_a_server_has_a_door_for_its_own_machine_and_one_for_others(tmp_path: Path) -> None:
    key = tmp_path / "job.key"
    assert Process([*SERVE, "keygen", str(key)], environment()).finish() == 0
    with Job(2, 1, MXOPT_KVSTORE_KEYS=key) as job:
        here = job.start_worker(0, "half", None)
        there = job.start(  # one that can't open the Unix socket
            [sys.executable, "-c", "import runpy, sys; from mxopt.kvstore import unix;"
             "unix.choose = lambda e: e.split()[-1]; sys.argv = ['workers', 'half', 'null'];"
             f"runpy.run_path({str(WORKERS)!r}, None, '__main__')"], DMLC_ROLE="worker", DMLC_WORKER_ID=1,
        )  # fmt: skip
        assert [here.finish(), there.finish()] == [0, 0], here.output + there.output
        assert "RESULT null" in here.lines
        assert "RESULT null" in there.lines
        assert not any("no keys" in line for p in job.processes for line in p.lines)


def test_keys_come_from_the_standard_input(tmp_path: Path) -> None:
    key = tmp_path / "job.key"
    assert Process([*SERVE, "keygen", str(key)], environment()).finish() == 0
    command = [*SERVE, "--role", "scheduler", "--port", "0", "--keys", "-"]
    with key.open() as text, Job(1, 1) as job:
        child = subprocess.Popen(command, env=job.env, stdin=text, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        port = child.stdout.readline().rpartition(":")[2].strip()
        env = {**job.env, "MXOPT_KVSTORE_KEYS": str(key)}
        found = subprocess.run([*SERVE, "status", "--json", "--scheduler", f"127.0.0.1:{port}"], env=env,
                               capture_output=True, text=True)  # fmt: skip
        child.terminate()
        child.communicate()
    assert json.loads(found.stdout)["state"] == "gathering"


@pytest.mark.parametrize(
    "text",
    ["", "hello", 'public-key = "a"\nsecret-key = "b"', f'public-key = "{"~" * 40}"\nsecret-key = "{"~" * 40}"'],
)
def test_a_file_without_keys_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ArgumentError, match="has no keys"):
        load_keys(str(path))


@pytest.mark.parametrize("launcher", ["ssh", "mpi", "slurm"])
def test_beyond_this_machine_a_job_without_keys_is_refused(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "hosts").write_text("one\n")
    for program in ("ssh", "mpirun", "srun"):
        (tmp_path / program).symlink_to("/bin/true")
    options = ["-n", "1", "--launcher", launcher, "-H", str(tmp_path / "hosts"), "--host", "127.0.0.1"]
    env = environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = subprocess.run([*LAUNCH, *options, "true"], env=env, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "--keys" in found.stderr
    assert "--insecure" in found.stderr
