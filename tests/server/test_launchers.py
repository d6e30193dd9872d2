"""Jobs that `mxopt-launch` starts by ssh, mpirun and srun, really run: by Open MPI, and by
stand-ins for the others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Process, environment
from mxopt_server import key_copies

ODD = """it's "odd", $HOME & `id`; a\\b*"""
WORKER = (
    "import json, os, sys; from mxopt import kvstore; store = kvstore.create('dist_sync'); store.barrier();"
    "found = json.dumps([store.rank, os.getcwd(), os.environ['ODD'], sys.argv[1:]]);"
    "os.write(1, f'SAW {found}\\n'.encode())"  # one write, since several workers may share a pipe
)
SSH = """#!/bin/sh
# ssh [-o OPTION] [-tt] [-p PORT] HOST COMMAND: a new session's environment and folder, as on another machine
while [ $# -gt 2 ]; do shift; done
echo "ssh to $1"
cd / && exec env -i PATH="$THERE" HOME=/ sh -c "$2"
"""
SRUN = """#!/bin/sh
# srun --ntasks N --nodes N OPTIONS... COMMAND
while case $1 in --ntasks) count=$2; shift;; --nodes) shift;; --*) ;; *) false;; esac do shift; done
k=0; while [ $k -lt $count ]; do "$@" & last="$last $!"; k=$((k + 1)); done
for p in $last; do wait $p || code=$?; done
exit ${code:-0}
"""


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `python3` is this Python and ssh and srun are stand-ins."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program(folder, "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    program(folder, "ssh", SSH)
    program(folder, "srun", SRUN)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def launch(path: str, tmp_path: Path, launcher: str, *command: str, **more: str) -> Process:
    arguments = ["-n", "2", "-s", "2", "--launcher", launcher, "--host", "127.0.0.1"]
    arguments += [] if "--keys" in command else ["--insecure"]
    arguments += ["--run-dir", str(tmp_path / "run"), "--env", f"ODD={ODD}", "--env", "DMLC_NODE_HOST=127.0.0.1"]
    for name, value in environment().items():
        if name.startswith(("MXOPT_", "PYTHONPATH")):
            arguments += ["--env", f"{name}={value}"]
    env = environment(PATH=path, THERE=path, **more)
    return Process([*LAUNCH, *arguments, *command], env)


def saw(process: Process) -> list[list[Any]]:
    return sorted(json.loads(line.partition("SAW ")[2]) for line in process.lines if "SAW " in line)


def test_ssh_keeps_folder_environment_and_words(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "the job's folder"
    folder.mkdir()
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1\nlocalhost:2222\n")
    options = ["-H", str(hosts), "--sync-dst-dir", str(folder)]
    process = launch(path, tmp_path, "ssh", *options, sys.executable, "-c", WORKER, ODD, "two words")
    assert process.finish() == 0, process.output
    assert saw(process) == [[rank, str(folder), ODD, [ODD, "two words"]] for rank in range(2)]
    assert {line for line in process.lines if "ssh to" in line} >= {
        "[worker-0] ssh to 127.0.0.1",
        "[worker-1] ssh to localhost",
    }


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "job.key"
    assert Process([*SERVE, "keygen", str(path)], environment()).finish() == 0
    return path


def test_ssh_brings_the_keys_in_files_that_only_their_owner_reads_and_removes_them(
    tmp_path: Path, path: str, keys: Path
) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1\nlocalhost:2222\n")
    look = (
        "import json, os, pathlib; file = pathlib.Path(os.environ['MXOPT_KVSTORE_KEYS']);"
        "from mxopt import kvstore; store = kvstore.create('dist_sync'); store.barrier();"
        "seen = [str(file), oct(file.stat().st_mode), file.read_text() == open(os.environ['HERE']).read()];"
        "os.write(1, f'SAW {json.dumps(seen)}\\n'.encode())"
    )
    options = ["-H", str(tmp_path / "hosts"), "--keys", str(keys), "--env", f"HERE={keys}"]
    process = launch(path, tmp_path, "ssh", *options, sys.executable, "-c", look)
    assert process.finish() == 0, process.output
    files = [file for file, *rest in saw(process) if rest == ["0o100600", True]]
    assert len(set(files)) == 2
    assert str(keys) not in files
    assert not [file for file in files if Path(file).exists()]


def test_keys_never_stand_on_a_command_line(tmp_path: Path, path: str, keys: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    secret = keys.read_text().partition('secret-key = "')[2].partition('"')[0]
    for launcher in ("local", "ssh", "slurm", "mpi", "ray"):
        options = ["-H", str(tmp_path / "hosts"), "--keys", str(keys), "--dry-run"]
        process = launch(path, tmp_path, launcher, *options, "train")
        assert process.finish() == 0, process.output
        assert secret not in process.output


def test_keys_go_into_no_file_or_pipe_that_is_there(tmp_path: Path) -> None:
    file, pipe, new = (tmp_path / name for name in ("file", "pipe", "new"))
    file.write_text("before")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (file, pipe, new):
            *_, command = key_copies.copy("here", str(path), "")
            done = subprocess.run(["/bin/sh", "-c", command], input=b"keys", stderr=subprocess.DEVNULL, timeout=60)
            assert (done.returncode == 0) == (path == new)
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)
    assert (file.read_text(), new.read_text()) == ("before", "keys")
    assert new.stat().st_mode & 0o777 == 0o600


def test_a_host_that_does_not_take_the_keys_is_named(tmp_path: Path, path: str, keys: Path) -> None:
    program(tmp_path / "programs", "ssh", "#!/bin/sh\necho 'no route to it' >&2; exit 255\n")
    (tmp_path / "hosts").write_text("far-away\n")
    options = ["-H", str(tmp_path / "hosts"), "--keys", str(keys)]
    process = launch(path, tmp_path, "ssh", *options, "train")
    assert process.finish() == 1
    assert "the keys can't be copied to far-away: ssh ended with code 255: no route to it" in process.output


def test_slurm_keeps_environment_and_words(tmp_path: Path, path: str) -> None:
    process = launch(path, tmp_path, "slurm", sys.executable, "-c", WORKER, ODD, "two words")
    assert process.finish() == 0, process.output
    assert saw(process) == [[rank, os.getcwd(), ODD, [ODD, "two words"]] for rank in range(2)]


ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun here")


@pytest.fixture
def as_root() -> Iterator[dict[str, str]]:
    """What lets root start mpirun, in a folder of its own: two that begin at once fail to make the
    one they share."""
    with tempfile.TemporaryDirectory() as folder:
        yield {**ROOT, "OMPI_MCA_orte_tmpdir_base": folder}


@needs_mpi
def test_mpi_keeps_environment_and_words_and_every_server_its_own_snapshot(
    tmp_path: Path, path: str, as_root: dict[str, str]
) -> None:
    more = ["--server-args", f"--snapshot {tmp_path}/server-RANK"]
    process = launch(path, tmp_path, "mpi", *more, sys.executable, "-c", WORKER, ODD, "two words", **as_root)
    assert process.finish() == 0, process.output
    assert saw(process) == [[rank, os.getcwd(), ODD, [ODD, "two words"]] for rank in range(2)]
    assert {p.name for p in tmp_path.glob("server-*")} == {"server-0", "server-1"}


@pytest.mark.parametrize("launcher", ["ssh", "slurm", pytest.param("mpi", marks=needs_mpi)])
def test_ctrl_c_leaves_no_orphan_of_any_launcher(
    tmp_path: Path, path: str, launcher: str, as_root: dict[str, str]
) -> None:
    psutil = pytest.importorskip("psutil")
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    options = ["-H", str(tmp_path / "hosts")] if launcher == "ssh" else []
    command = [sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}']
    process = launch(path, tmp_path, launcher, *options, *command, **as_root)
    process.wait_for("RUNNING")
    children = psutil.Process(process.child.pid).children(recursive=True)
    assert len([c for c in children if "mxopt_server" in c.cmdline() and "python" in c.name()]) >= 3
    process.child.send_signal(signal.SIGINT)
    assert process.finish(30) == 130
    _, alive = psutil.wait_procs(children, 5)
    assert not alive


@pytest.mark.parametrize("launcher", ["slurm", pytest.param("mpi", marks=needs_mpi)])
def test_one_failing_worker_of_a_launcher_ends_the_job(
    tmp_path: Path, path: str, launcher: str, as_root: dict[str, str]
) -> None:
    script = "from mxopt import kvstore; s = kvstore.create('dist_sync'); s.rank == 1 and 1 / 0; s.barrier()"
    process = launch(path, tmp_path, launcher, sys.executable, "-c", script, **as_root)
    assert process.finish(40) != 0, process.output
    assert "ZeroDivisionError" in process.output
    assert "mxopt-launch: worker-0 failed" in process.output or "worker 1" in process.output


def test_a_script_started_for_every_role_becomes_server_and_scheduler(tmp_path: Path) -> None:
    import socket

    script = (
        "import os, numpy as np; from mxopt import kvstore; store = kvstore.create('dist_sync')\n"
        "if os.environ['DMLC_ROLE'] != 'worker': kvstore.KVStoreServer(store).run()\n"
        "out = np.zeros(2, np.float32); store.init(0, out); store.push(0, out + 3); store.pull(0, out)\n"
        "print('PULLED', out.tolist(), flush=True)"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = environment(DMLC_NUM_WORKER=1, DMLC_NUM_SERVER=1, DMLC_PS_ROOT_PORT=port)
    roles = ("scheduler", "server", "worker")
    processes = [Process([sys.executable, "-c", script], {**env, "DMLC_ROLE": role}) for role in roles]
    try:
        assert [p.finish() for p in processes] == [0, 0, 0], "\n".join(p.output for p in processes)
    finally:
        for p in processes:
            p.kill()
    assert processes[2].lines == ["PULLED [3.0, 3.0]"]
    assert "listening on" in processes[1].output
