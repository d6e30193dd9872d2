"""`mxopt-launch -n W -s S COMMAND`: starts a whole job, shows its output, and ends it as one."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mxopt.settings import usable_cores
from mxopt_server import launchers
from mxopt_server.launchers import Process

GRACE_S = 10.0  # how long processes have to end by themselves after a failure or Ctrl-C
READY_S = 60.0


def parser() -> argparse.ArgumentParser:
    """The command line; names as in MXNet's tools/launch.py."""
    made = argparse.ArgumentParser("mxopt-launch", description=__doc__)
    made.add_argument("-n", "--num-workers", type=int, required=True, metavar="W", help="how many workers")
    made.add_argument("-s", "--num-servers", type=int, metavar="S", help="how many servers (as many as workers)")
    made.add_argument("-H", "--hostfile", help="ssh, mpi: a file with one host a line")
    made.add_argument("--launcher", choices=["local", "ssh", "mpi", "slurm"], default="local", help="how (%(default)s)")
    made.add_argument(
        "--host", metavar="HOST", help="ssh, mpi, slurm: the address of this machine as the others reach it"
    )
    made.add_argument(
        "--sync-dst-dir", metavar="DIR", help="ssh: the folder to run in on the other machines (this one)"
    )
    made.add_argument("--username", default="", help="ssh: the user's name there")
    made.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable in every process"
    )
    made.add_argument("--run-dir", metavar="DIR", help="where the logs go (a new folder under ./runs)")
    made.add_argument("--server-args", default="", metavar="ARGS", help="more arguments for every mxopt-server")
    made.add_argument("--keys", metavar="FILE", help="the job's keys, needed beyond this machine")
    made.add_argument("--insecure", action="store_true", help="listen beyond this machine without keys")
    made.add_argument("--dry-run", action="store_true", help="print the command lines and start nothing")
    made.add_argument("command", nargs=argparse.REMAINDER, help="what every worker runs")
    return made


class Launch:
    """A running job: its processes, their output, their end."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.running: dict[subprocess.Popen[str], Process] = {}
        self.failed: tuple[str, int] | None = None  # the first process to fail, and its exit code
        self._threads: list[threading.Thread] = []
        self._ready: dict[str, str] = {}
        self._changed = threading.Condition()
        self._show = threading.Lock()

    def start(self, process: Process) -> None:
        """Starts a process in a session of its own, so that nothing it starts outlives the job."""
        env = {**os.environ, **process.env, "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(
            process.command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        self.running[child] = process
        for target in (self._copy, self._await):
            thread = threading.Thread(target=target, args=(child, process), daemon=True)
            thread.start()
            self._threads.append(thread)

    def endpoint(self, name: str) -> str:
        """Where a process says that it listens."""
        deadline = time.monotonic() + READY_S
        with self._changed:
            while name not in self._ready:
                if self.failed or not self._changed.wait(deadline - time.monotonic()):
                    raise RuntimeError(f"{name} didn't start; see {self.run_dir / name}.log")
        return self._ready[name]

    def wait(self) -> int:
        """Returns the job's exit code when all is over: 0, or that of the first process that failed."""
        with self._changed:
            while self.running and not self.failed:
                self._changed.wait()
        if self.failed:
            name, code = self.failed
            self._say(f"mxopt-launch: {name} failed with exit code {code}; its log is {self.run_dir / name}.log")
            self.stop()
            return code if 0 < code < 126 else 1
        return 0

    def stop(self) -> None:
        """Ends all processes: first by asking, then by force."""
        with self._changed:
            self._changed.wait_for(lambda: not self.running, 0.5)  # the others tell what they know by themselves
        self._signal(signal.SIGTERM)
        with self._changed:
            self._changed.wait_for(lambda: not self.running, GRACE_S)
        self._signal(signal.SIGKILL)
        with self._changed:
            self._changed.wait_for(lambda: not self.running, 5)
        for thread in self._threads:
            thread.join(1)

    def _signal(self, number: int) -> None:
        with self._changed:
            for child in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)

    def _copy(self, child: subprocess.Popen[str], process: Process) -> None:
        """Copies a process's output to its log, and prefixed to the terminal."""
        stream: IO[str] = child.stdout  # type: ignore[assignment]
        with open(self.run_dir / f"{process.name}.log", "w") as log:
            for line in stream:
                log.write(line)
                log.flush()
                if line.startswith("listening on ") and process.role != "worker":
                    with self._changed:
                        self._ready[process.name] = line.removeprefix("listening on ").strip()
                        self._changed.notify_all()
                    continue
                if process.role == "worker" or " INFO " not in line:
                    self._say(f"[{process.name}] {line.rstrip()}")

    def _await(self, child: subprocess.Popen[str], process: Process) -> None:
        code = child.wait()
        with self._changed:
            self.running.pop(child, None)
            if code != 0 and self.failed is None:
                self.failed = (process.name, code)
            self._changed.notify_all()

    def _say(self, line: str) -> None:
        with self._show:
            print(line, flush=True)


def processes(options: argparse.Namespace, job: str, host: str) -> list[Process]:
    """The scheduler, the servers and the workers of a job; the scheduler's port is filled in when it is known."""
    workers, servers = options.num_workers, options.num_servers
    local = options.launcher == "local"
    shared = {
        "DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers), "DMLC_PS_ROOT_URI": host, "MXOPT_JOB_ID": job,
    }  # fmt: skip
    if local and "OMP_NUM_THREADS" not in os.environ:
        # Each worker's BLAS would take all cores for itself, and wait for the others' by spinning.
        shared["OMP_NUM_THREADS"] = str(max(1, usable_cores() // workers))
    for assignment in options.env:
        name, _, value = assignment.partition("=")
        shared[name] = value
    if options.keys:
        shared["MXOPT_KVSTORE_KEYS"] = os.path.abspath(options.keys)
    python = sys.executable if local else "python3"
    serve = [python, "-m", "mxopt_server", *([] if local else ["--bind", "0.0.0.0"])]
    serve += ["--insecure"] if options.insecure else []
    made = [Process("scheduler", 0, (*serve, "--port", "0"), {**shared, "DMLC_ROLE": "scheduler"})]
    more = shlex.split(options.server_args)
    for rank in range(servers):
        ranked = options.launcher in ("local", "ssh")  # else all servers have one command line
        arguments = [a.replace("RANK", str(rank)) if ranked else a for a in more]
        made.append(
            Process(
                "server", rank, (*serve, *arguments), {**shared, "DMLC_ROLE": "server", "DMLC_SERVER_ID": str(rank)}
            )
        )
    for rank in range(workers):
        env = {**shared, "DMLC_ROLE": "worker", "DMLC_WORKER_ID": str(rank)}
        made.append(Process("worker", rank, tuple(options.command), env))
    return made


def remote_commands(options: argparse.Namespace, all_: Sequence[Process], port: str) -> list[Process]:
    """The servers and workers as commands to be run on this machine, by ssh, mpirun or srun."""
    root = {"DMLC_PS_ROOT_PORT": port}
    hosts = launchers.hosts_of(Path(options.hostfile).read_text()) if options.hostfile else []
    made = []
    if options.launcher == "ssh":
        if not hosts:
            raise SystemExit("mxopt-launch: --launcher ssh needs --hostfile")
        folder = options.sync_dst_dir or os.getcwd()
        for k, p in enumerate(all_):
            host = hosts[k % len(hosts)]
            env = {**p.env, **root}
            if p.role == "server":
                env["DMLC_NODE_HOST"] = host.partition(":")[0]
            there = Process(p.role, p.rank, p.command, env)
            made.append(Process(p.role, p.rank, tuple(launchers.ssh(there, host, folder, options.username)), {}))
        return made
    for role in ("server", "worker"):
        same = [p for p in all_ if p.role == role]
        env = {k: v for k, v in {**same[0].env, **root}.items() if k not in ("DMLC_SERVER_ID", "DMLC_WORKER_ID")}
        if options.launcher == "mpi":
            command = launchers.mpi(same[0].command, len(same), env, options.hostfile or "")
            env = {}
        else:
            nodes = math.ceil(len(same) / max(1, len(hosts))) if hosts else len(same)
            command = launchers.slurm(same[0].command, len(same), nodes)
        made.append(Process(role, 0, tuple(command), env))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `mxopt-launch`; returns the job's exit code."""
    options = parser().parse_args(arguments)
    if options.num_servers is None:
        options.num_servers = options.num_workers
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    if not options.command or options.num_workers < 1 or options.num_servers < 1:
        print("mxopt-launch: needs a command, and 1 or more workers and servers", file=sys.stderr)
        return 2
    job = secrets.token_hex(4)
    local = options.launcher == "local"
    host = "127.0.0.1" if local else options.host or socket.gethostname()
    scheduler, *others = processes(options, job, host)
    if options.dry_run:
        shown = others if local else remote_commands(options, others, "PORT")
        for p in (scheduler, *shown):
            print(f"{p.name}: {launchers.assignments(p.env)} {' '.join(p.command)}".replace("  ", " "))
        return 0
    run_dir = Path(options.run_dir or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{job}")
    run_dir.mkdir(parents=True, exist_ok=True)
    return _run(options, scheduler, others, Launch(run_dir))


def _run(options: argparse.Namespace, scheduler: Process, others: Sequence[Process], launch: Launch) -> int:
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        launch.start(scheduler)
        port = launch.endpoint("scheduler").rpartition(":")[2]
        if options.launcher == "local":
            for p in others:
                launch.start(Process(p.role, p.rank, p.command, {**p.env, "DMLC_PS_ROOT_PORT": port}))
        else:
            for p in remote_commands(options, others, port):
                launch.start(p)
        return launch.wait()
    except KeyboardInterrupt:
        print("mxopt-launch: stopped", file=sys.stderr, flush=True)
        launch.stop()
        return 130
    except RuntimeError as error:
        print(f"mxopt-launch: {error}", file=sys.stderr, flush=True)
        launch.stop()
        return 1
    finally:
        launch.stop()
