"""`--launcher ray`: a job's scheduler and servers as actors, and its workers as tasks, of a Ray
cluster."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from mxopt.settings import BECOME_ROLE
from mxopt.typing import Plain
from mxopt_server.children import die_with
from mxopt_server.durability import NO_RESTARTS, Restarts
from mxopt_server.launchers import Process
from mxopt_server.output import READ_BYTES, Output
from mxopt_server.running import GRACE_S, Launch

WAIT_S = 0.2
RETURN_S = 30.0  # how long Ray may take to start an actor again
LOST = -signal.SIGKILL  # the code of a process whose actor, task or node is gone


class RayLaunch(Launch):
    """A job on the cluster that `ray.init` finds, by RAY_ADDRESS or on this machine; `keys` is the
    text of its keys' file, "" without."""

    def __init__(
        self,
        run_dir: Path,
        wake: int,
        folder: str,
        keys: str,
        output: int | None = None,
        restarts: Restarts = NO_RESTARTS,
    ) -> None:
        super().__init__(run_dir, wake, False, output, restarts)
        self._folder, self._keys = folder, keys
        self._actors: Plain = {}  # by the names of scheduler and servers
        self._addresses: dict[str, str] = {}  # of the nodes they run on
        if not ray.is_initialized():
            ray.init(logging_level="WARNING", log_to_driver=False)

    def start(self, process: Process) -> None:
        """Starts a process on some node; a server again on the same, where that is still there."""
        name, role = process.name, process.role
        if name not in self.outputs:
            self.outputs[name] = Output(name, None, self.run_dir / f"{name}.log", self.terminal, role == "worker")
        given = (process.command, dict(process.env), role, self._folder, self._keys)
        if role == "worker":
            stream = _work.remote(*given)
        else:
            if name not in self._actors:
                # Ray starts an actor again, on another node if need be, when its process or node is
                # lost.
                restarts = -1 if role == "server" else 0
                self._actors[name] = _host.options(
                    max_restarts=restarts, num_cpus=int(role == "server"), scheduling_strategy="SPREAD"
                ).remote()
            else:
                _wait_for(self._actors[name])
            stream = self._actors[name].run.options(num_returns="streaming").remote(*given)
        self.running[stream] = process

    def endpoint(self, name: str) -> str:
        """Where a process listens, by its node's address."""
        port = super().endpoint(name).rpartition(":")[2]
        return f"tcp://{self._addresses[name]}:{port}"

    def turn(self, seconds: float) -> None:
        """Waits at most this long for output or an end, and sees to what has come."""
        if not self.running:
            select.select([self.wake], [], [], seconds)
        ready, _ = ray.wait(list(self.running), timeout=seconds) if self.running else ([], [])
        for stream in ready:
            self._take(stream)
        self.look_for_signals()

    def end(self) -> None:
        """Ends what runs: workers by asking, then with servers and scheduler by force."""
        for stream, process in list(self.running.items()):
            if process.role == "worker":
                ray.cancel(stream, force=False)
        self.until(lambda: self.asked or "worker" not in {p.role for p in self.running.values()}, GRACE_S)
        for stream, process in self.running.items():
            if process.role == "worker":
                ray.cancel(stream, force=True)
        for actor in self._actors.values():
            ray.kill(actor)  # and its process is asked to end
        self._actors.clear()
        self.running.clear()
        for output in self.outputs.values():
            output.close()

    def _take(self, stream: Any) -> None:
        process = self.running[stream]
        try:
            what = ray.get(next(stream))
        except (exceptions.RayError, StopIteration):
            what = LOST
            where = f" on the node {self._addresses[process.name]}" if process.name in self._addresses else ""
            self.terminal.say(f"mxopt-launch: Ray has lost the process of {process.name}{where}, or the node itself")
        if isinstance(what, bytes):
            self.outputs[process.name].take(what)
        elif isinstance(what, str):
            self._addresses[process.name] = what
        else:
            self.outputs[process.name].take(b"")
            del self.running[stream]
            self.ended(process, what)


def run(
    command: tuple[str, ...], env: Mapping[str, str], role: str, folder: str, keys: str
) -> Iterator[str | bytes | int]:
    """Runs a process of a job on this node, until it ends. Yields the node's address, what the
    process writes, and its exit code, which is negative where a signal has killed it."""
    address = ray.util.get_node_ip_address()
    yield address
    variables = {**os.environ, BECOME_ROLE: "0", "PYTHONUNBUFFERED": "1", "DMLC_NODE_HOST": address, **env}
    if role == "worker":
        del variables[BECOME_ROLE]
    if keys:
        variables["MXOPT_KVSTORE_KEYS"] = "-"  # the standard input, so that no file stays behind
    try:
        child = subprocess.Popen(
            command, env=variables, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with(os.getpid(), signal.SIGKILL),
        )  # fmt: skip
    except OSError as error:
        yield f"mxopt-launch: it can't be started on {address}: {error}\n".encode()
        yield 127
        return
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(keys.encode())
        while True:
            # A cancelled task is told so between two instructions, not within a call that waits.
            if select.select([child.stdout], [], [], WAIT_S)[0]:
                data = os.read(child.stdout.fileno(), READ_BYTES)
                if not data:
                    break
                yield data
        yield child.wait()
    finally:
        _end(child)


class Host:
    """A scheduler or server, as an actor."""

    def run(self, *given: Any) -> Iterator[str | bytes | int]:
        """Runs it, as the function does."""
        yield from run(*given)

    def here(self) -> None:
        """Returns: what is asked of an actor that Ray is starting again is lost."""


_host: Any = ray.remote(Host)
_work: Any = ray.remote(num_cpus=1, max_retries=0, num_returns="streaming", scheduling_strategy="SPREAD")(run)


def _wait_for(actor: Any) -> None:
    """Waits until an actor is there, RETURN_S at most."""
    until = time.monotonic() + RETURN_S
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(exceptions.RayError):
            ray.get(actor.here.remote(), timeout=left)
            return
        time.sleep(WAIT_S)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends a child and what it has started: by asking, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
