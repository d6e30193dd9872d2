"""Starts real jobs for tests: a scheduler, servers, and workers that run a function of
`workers.py`.

Every job has a deadline, and leaves no process behind. Its processes are forked (`forking.py`), if
it isn't `fresh`; commands are started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from forking import Forks

ROOT = Path(__file__).resolve().parents[2]
WORKERS = Path(__file__).with_name("workers.py")
DEADLINE_S = 60
SERVE = [sys.executable, "-m", "mxopt_server"]
LAUNCH = [sys.executable, "-c", "import sys; from mxopt_server.launch import main; sys.exit(main())"]


def environment(**more: Any) -> dict[str, str]:
    """This process's environment, without what could disturb a job."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DMLC_", "MXOPT_", "MXNET_"))}
    env["PYTHONPATH"] = os.pathsep.join(str(ROOT / folder) for folder in ("", "server", "tests", "tests/kvstore"))
    env |= {"MXOPT_KVSTORE_JOIN_TIMEOUT": "30", "MXOPT_KVSTORE_TIMEOUT": "30", "MXOPT_KVSTORE_HEARTBEAT": "0.2",
            "MXOPT_KVSTORE_DEAD_AFTER": "3", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}  # fmt: skip
    return env | {k: str(v) for k, v in more.items()}


@cache
def forks() -> Forks:
    return Forks(environment())


def started(command: list[str], env: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


class Process:
    """A child whose output is collected, and whose announced endpoint can be waited for."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path | None = None, forked: bool = False) -> None:
        self.child: Any = forks().fork(command, env) if forked else started(command, env, cwd)
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, text: str, deadline_s: float = 30) -> str:
        """The first line with `text`."""
        until = time.monotonic() + deadline_s
        with self._changed:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                left = until - time.monotonic()
                over = self.child.poll() is not None and not self._reader.is_alive()
                if left <= 0 or over or not self._changed.wait(left):
                    raise AssertionError(f"no line with {text!r} in:\n{self.output}")

    @property
    def endpoint(self) -> str:
        return self.wait_for("listening on").rpartition(" ")[2]

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def finish(self, deadline_s: float = DEADLINE_S) -> int:
        """Waits for its end; returns its exit code."""
        code: int = self.child.wait(deadline_s)
        self._reader.join(5)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it and to all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)


class Job:
    """A job with its processes; as a context it ends with all of them gone."""

    def __init__(
        self,
        workers: int = 1,
        servers: int = 1,
        server_args: tuple[str, ...] = (),
        serve: list[str] = SERVE,
        fresh: bool = False,
        **env: Any,
    ) -> None:
        self.env = environment(**{"DMLC_NUM_WORKER": workers, "DMLC_NUM_SERVER": servers, **env})
        self.processes: list[Process] = []
        self.server_args, self.serve, self.forked = server_args, serve, not fresh
        local = "DMLC_PS_ROOT_URI" in env  # a Unix socket
        scheduler = [*SERVE, "--role", "scheduler", *([] if local else ["--port", "0"])]
        self.scheduler = self.start(scheduler, self.forked)
        try:
            self.port = self.scheduler.endpoint.rpartition(":")[2]
            if not local:
                self.env["DMLC_PS_ROOT_PORT"] = self.port
            self.servers = [self.start_server(rank) for rank in range(servers)]
        except BaseException:
            self.__exit__()
            raise
        self.workers: list[Process] = []

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            if process.child.poll() is None:
                process.kill()
            process.finish()

    def start(self, command: list[str], forked: bool = False, **env: Any) -> Process:
        process = Process(command, {**self.env, **{k: str(v) for k, v in env.items()}}, forked=forked)
        self.processes.append(process)
        return process

    def start_server(self, rank: int, *arguments: str) -> Process:
        more = [a.replace("RANK", str(rank)) for a in (*self.server_args, *arguments)]
        forked = self.forked and self.serve is SERVE
        return self.start([*self.serve, "--role", "server", *more], forked, DMLC_SERVER_ID=rank)

    def start_worker(self, rank: int, function: str, arguments: Any = None) -> Process:
        command = [sys.executable, str(WORKERS), function, json.dumps(arguments)]
        process = self.start(command, self.forked, DMLC_ROLE="worker", DMLC_WORKER_ID=rank)
        self.workers.append(process)
        return process

    def run(self, function: str, arguments: Any = None) -> list[Any]:
        """Runs `function` in every worker; returns what each returned. Raises where any process
        failed."""
        count = int(self.env["DMLC_NUM_WORKER"])
        started = [self.start_worker(rank, function, arguments) for rank in range(count)]
        codes = [process.finish() for process in started]
        if any(codes):
            raise AssertionError("a worker failed:\n" + "\n".join(p.output for p in self.processes))
        return [result_of(process) for process in started]

    def ended(self) -> list[int]:
        """The exit codes of scheduler and servers."""
        return [p.finish(20) for p in (self.scheduler, *self.servers)]


def result_of(process: Process) -> Any:
    """What a worker's function returned."""
    line = next(line for line in process.lines if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))
