"""Scheduler and servers on a Ray cluster, for a program that runs the workers itself, as tasks or
actors of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mxopt.errors import ArgumentError, JobFailedError, counted
from mxopt_server.job_state import JobState
from mxopt_server.launch import gone, parser
from mxopt_server.plan import Plan
from mxopt_server.running import GRACE_S

try:
    from mxopt_server.ray_launch import RayLaunch
except ModuleNotFoundError as missing:
    if missing.name != "ray":
        raise
    raise ImportError("mxopt_server.ray_servers needs the package ray: pip install 'mxopt[ray]'") from missing


@dataclass(frozen=True)
class Seat:
    """A worker's place in a job, to be handed to the task or actor that is the worker."""

    variables: Mapping[str, str]
    keys: str  # the text of the job's keys' file, "" without

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Within this context `kvstore.create` makes the store of this worker. It can be used
        afterwards too."""
        with tempfile.TemporaryDirectory(prefix="mxopt-keys-") as private:  # of mode 0700
            given = dict(self.variables)
            if self.keys:
                path = Path(private) / "job.key"
                path.touch(0o600)
                path.write_text(self.keys)
                given["MXOPT_KVSTORE_KEYS"] = str(path)
            before = {name: os.environ.get(name) for name in given}
            os.environ.update(given)
            try:
                yield
            finally:
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value


class Servers:
    """The scheduler and the servers of a job, as a context; at its end they are ended.

    Parameters
    ----------
    workers, servers : int
        How many of each.
    arguments : str
        More options, as words of `mxopt-launch`'s command line: `"--keys", "job.key"`, or
        `"--insecure"`, and so on.
    run_dir : path
        Where the logs go.
    """

    def __init__(self, workers: int, servers: int, *arguments: str, run_dir: str | os.PathLike[str]) -> None:
        given = ["--launcher", "ray", "-n", str(workers), "-s", str(servers), *arguments, "worker"]
        options = parser().parse_args(given)
        self._state = JobState(options, secrets.token_hex(4), Path(run_dir))
        self._plan = Plan(options, self._state.job, self._state.durability)
        self._plan.check()
        self._run_dir = Path(run_dir)
        self._over = threading.Event()
        self._seats: list[Seat] = []

    def __enter__(self) -> Servers:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._held.enter_context(self._state.held())
        keys = self._plan.options.keys
        self._wake = socket.socketpair()
        self._wake[0].setblocking(False)
        text = Path(keys).read_text() if keys else ""
        with open(os.devnull, "wb") as nowhere:
            self._output = os.dup(nowhere.fileno())
        self._launch = _Launch(
            self._run_dir, self._wake[0].fileno(), os.getcwd(), text, self._output, self._state.restarts
        )
        try:
            self._launch.start(self._plan.scheduler)
            root = self._launch.endpoint("scheduler")
            self._launch.gone = lambda process, why: gone(root, keys or "", self._plan.job, process, why)
            for process in self._plan.started(root):
                if process.role == "worker":
                    self._seats.append(Seat(process.env, text))
                else:
                    self._launch.start(process)
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._attend, name="mxopt-servers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if error[0] is None:  # the workers have ended, and the job does so by itself
            self._launch.until(lambda: not self._launch.running, GRACE_S)
        self._close()

    def seat(self, rank: int) -> Seat:
        """The place of the worker with this rank. Raises ArgumentError if the job has none,
        JobFailedError where it has failed."""
        if not 0 <= rank < len(self._seats):
            raise ArgumentError(f"rank {rank}: the job has {counted(len(self._seats), 'worker')}, from 0 on")
        if self._launch.failed is not None:
            name, code = self._launch.failed
            raise JobFailedError(f"{name} has ended with exit code {code}; its log is {self._run_dir / name}.log")
        return self._seats[rank]

    def _attend(self) -> None:
        while not self._over.is_set():
            self._launch.turn(0.2)
            self._launch.tell_lost()

    def _close(self) -> None:
        self._launch.stop()
        self._held.close()
        os.close(self._output)
        for end in self._wake:
            end.close()


class _Launch(RayLaunch):
    """The servers of workers that are the program's own."""

    def at_work(self) -> bool:
        """Until the context ends."""
        return True
