"""`mxopt-launch -n W -s S COMMAND`: starts a whole job, shows its output, and ends it as one."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from mxopt.errors import ArgumentError
from mxopt.settings import BECOME_ROLE
from mxopt_server.arguments import Parser, count
from mxopt_server.launchers import Process
from mxopt_server.plan import Plan

GRACE_S = 10.0  # how long processes have to end by themselves after a failure or Ctrl-C
READY_S = 60.0


def parser() -> Parser:
    """The command line; names as in MXNet's tools/launch.py."""
    made = Parser("mxopt-launch", description=__doc__)
    made.add_argument("-n", "--num-workers", type=count, required=True, metavar="W", help="how many workers")
    made.add_argument("-s", "--num-servers", type=count, metavar="S", help="how many servers (as many as workers)")
    made.add_argument("-H", "--hostfile", help="ssh, mpi: a file with one host a line")
    made.add_argument("--launcher", choices=["local", "ssh", "mpi", "slurm"], default="local", help="how (%(default)s)")
    made.add_argument(
        "--host", metavar="HOST", help="ssh, mpi, slurm: the address of this machine as the others reach it"
    )
    made.add_argument(
        "--sync-dst-dir", metavar="DIR", help="ssh: the folder to run in on the other machines (this one)"
    )
    made.add_argument("--username", default="", help="ssh: the user's name there")
    for name, whom in (("--env", "every process"), ("--env-server", "servers"), ("--env-worker", "workers")):
        made.add_argument(
            name, action="append", default=[], metavar="NAME[=VALUE]",
            help=f"a variable for {whom}; without a value this process's is handed on (NAME:VALUE is the same)",
        )  # fmt: skip
    made.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="the Python of scheduler and servers (%(default)s)"
    )
    made.add_argument("--run-dir", metavar="DIR", help="where the logs go (a new folder under ./runs)")
    made.add_argument("--server-args", default="", metavar="ARGS", help="more arguments for every mxopt-server")
    made.add_argument("--keys", metavar="FILE", help="the job's keys, needed beyond this machine")
    made.add_argument("--insecure", action="store_true", help="listen beyond this machine without keys")
    made.add_argument("--dry-run", action="store_true", help="print the command lines, to be pasted, and start nothing")
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
        env = {**os.environ, BECOME_ROLE: "0", "PYTHONUNBUFFERED": "1", **process.env}
        if process.role == "worker":
            del env[BECOME_ROLE]
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
            self._say(f"mxopt-launch: {name} {_ended(code)}; its log is {self.run_dir / name}.log")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `mxopt-launch`; returns the job's exit code."""
    options = parser().parse_args(arguments)
    if options.num_servers is None:
        options.num_servers = options.num_workers
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    try:
        return _run(options)
    except ArgumentError as error:
        print(f"mxopt-launch: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if not options.command:
        raise ArgumentError("needs a command, which every worker runs")
    plan = Plan(options, secrets.token_hex(4))
    if options.dry_run:
        with socket.create_server((plan.host if plan.local else "", 0)) as free:
            port = str(free.getsockname()[1])
        scheduler = replace(plan.scheduler, command=(*plan.scheduler.command[:-1], port))
        print(*(p.line for p in (scheduler, *plan.started(port))), sep="\n")
        return 0
    plan.check()
    run_dir = Path(options.run_dir or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{plan.job}")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"the folder for the logs can't be made: {error}") from None
    return _start(plan, Launch(run_dir))


def _start(plan: Plan, launch: Launch) -> int:
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        launch.start(plan.scheduler)
        port = launch.endpoint("scheduler").rpartition(":")[2]
        for process in plan.started(port):
            launch.start(process)
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


def _ended(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"failed with exit code {code}"
    try:
        return f"failed: killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"failed: killed by signal {-code}"
