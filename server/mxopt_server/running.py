"""A running job: its processes, their output and their end, in one thread that waits for output and
signals."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mxopt.errors import counted
from mxopt.settings import BECOME_ROLE
from mxopt_server import children
from mxopt_server.durability import NO_RESTARTS, Restarts
from mxopt_server.launchers import Process
from mxopt_server.output import Output, Terminal
from mxopt_server.signals import Interrupted

GRACE_S = 10.0  # how long processes have to end by themselves after a failure or a signal
TELL_S = 0.5  # how long the others of a failed job have to tell what they know, and end by themselves
WORKERS_TELL_S = 3.0  # the same where no worker was the first to end: what a worker has to say may be the cause
DRAIN_S = 1.0  # how long output is waited for that who started it has outlived
READY_S = 60.0
SSH_KILLED = (255, *range(129, 160))  # exit codes of ssh for a process that a signal has killed there
IDLE_S = 2.0  # how long after the workers' end servers may still run before the scheduler is asked why


class Launch:
    """The processes of a job, with their logs in the folder `run_dir`; `wake` is of `signals`,
    `local` says whether workers are processes of this machine."""

    def __init__(
        self, run_dir: Path, wake: int, local: bool, output: int | None = None, restarts: Restarts = NO_RESTARTS
    ) -> None:
        self.run_dir, self._local, self._restarts = run_dir, local, restarts
        # Told of a worker that the job does without, of a server that comes back, or why it won't.
        self.gone: Callable[[Process, str], None] = lambda process, why: None
        self._again: Counter[str] = Counter()  # how often each process was started again
        self.terminal = Terminal(wake, output)
        self.running: dict[Any, Process] = {}  # by what they run as: Popen
        self.failed: tuple[str, int] | None = None  # the first process to fail, and its exit code
        self.why = ""  # why the job has failed
        self._lost: tuple[Process, str] | None = None  # a server without which it has, and how that ended
        self._missing: tuple[str, int] | None = None  # the first worker that failed, and the job went on
        self._well = False  # whether a worker has ended well
        self._ended: list[subprocess.Popen[bytes]] = []  # not reaped, so that their groups' numbers stay theirs
        self.outputs: dict[str, Output] = {}
        self.wake, self.asked = wake, 0  # the last signal that asked for the end
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ)

    def start(self, process: Process) -> None:
        """Starts a process in a session of its own, so that nothing it starts outlives the job.
        Raises LaunchError if that can't be done."""
        env = {**os.environ, BECOME_ROLE: "0", "PYTHONUNBUFFERED": "1", **process.env}
        if process.role == "worker":
            del env[BECOME_ROLE]
        # Where this process is killed, others may tidy up; a worker might go on for ever.
        last = signal.SIGKILL if self._local and process.role == "worker" else signal.SIGTERM
        try:
            child = subprocess.Popen(
                process.command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=children.die_with(os.getpid(), last),
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise children.LaunchError(f"{process.name} can't be started: {error}") from None
        self.running[child] = process
        assert child.stdout is not None
        pipe = os.dup(child.stdout.fileno())
        child.stdout.close()
        log = self.run_dir / f"{process.name}.log"
        again, shown = process.name in self.outputs, process.role == "worker"
        output = self.outputs[process.name] = Output(process.name, pipe, log, self.terminal, shown, again)
        self._selector.register(pipe, selectors.EVENT_READ, output)

    def endpoint(self, name: str) -> str:
        """The endpoint at which a process says that it listens."""
        output = self.outputs[name]
        self.until(lambda: output.listening or self.failed, READY_S)
        if not output.listening:
            raise children.LaunchError(f"{name} didn't start; see {self.run_dir / name}.log")
        return output.listening

    def wait(self, idle: Callable[[], str]) -> int:
        """Returns the job's exit code when all is over: 0, or that of the first process that
        failed. `idle` is asked for a reason to stop when all workers have ended and the other
        processes stay."""
        self.until(lambda: self.failed or "worker" not in {p.role for p in self.running.values()})
        if self.failed is None and not self.until(lambda: self.failed or not self.running, IDLE_S):
            why = idle()
            if why:
                self.why = why
                return 1
            self.until(lambda: self.failed or not self.running)
        if not self._well:
            self.failed = self.failed or self._missing
        if self.failed is None:
            return 0
        name, code = self.failed
        try:
            self.until(lambda: not self.running, TELL_S if name.startswith("worker") else WORKERS_TELL_S)
        finally:
            self.why = self._reason(name, code)
        return code if code > 0 else 1

    def stop(self) -> None:
        """Ends all processes and what they have started: first by asking, then by force; at once
        where a signal comes meanwhile."""
        self.terminal.until = time.monotonic() + GRACE_S
        self.asked = 0
        self.end()

    def end(self) -> None:
        """Ends all processes, and copies the rest of their output."""
        for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 5.0)):
            if self.running:
                self._signal(number)
                self.until(lambda: not self.running or self.asked, seconds)
        self.until(lambda: len(self._selector.get_map()) == 1, DRAIN_S)
        for child in (*self._ended, *self.running):
            child.poll()
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = [child for child in (*self._ended, *self.running) if children.send(child, number)]
            if left:
                self.until(lambda: self.asked or not any(children.send(child, 0) for child in left), DRAIN_S)  # noqa: B023
        for key in [k for k in self._selector.get_map().values() if k.data is not None]:
            self._drop(key.data, key.fd)
        self._selector.close()

    def _signal(self, number: int) -> None:
        for child in self.running:
            children.send(child, number)

    def until(self, done: Callable[[], object], seconds: float = float("inf")) -> bool:
        """Copies output until `done`; False if that isn't so after `seconds`. Raises Interrupted
        if a signal asks for the end, or nobody reads the output any more; not while the job is
        being stopped."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(min(left, 0.1))
            if self.terminal.until is None and (self.asked or self.terminal.gone):
                raise Interrupted(self.asked or signal.SIGPIPE)
        return True

    def turn(self, seconds: float) -> None:
        """Waits up to `seconds` for output, signals or the end of a process, and handles what
        comes."""
        for key, _ in self._selector.select(seconds):
            if key.data is not None:
                if not key.data.copy():
                    self._drop(key.data, key.fd)
                continue
            self.look_for_signals()
        for child in list(self.running):
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                process = self.running.pop(child)
                self._ended.append(child)
                code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
                self.ended(process, code)

    def look_for_signals(self) -> None:
        """Notes signals that ask for the end."""
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self.wake, 64):
                self.asked = number

    def ended(self, process: Process, code: int) -> None:
        """Handles the end of a process; `code` is negative if a signal killed it."""
        self._well |= not code and process.role == "worker"
        if not code or self.failed is not None or self._start_again(process, code) or self._unneeded(process, code):
            return
        if self._left_out(process, code):
            self._missing = self._missing or (process.name, code)
        else:
            self.failed = self._missing or (process.name, code)
            if process.role == "server" and self.terminal.until is None:
                self._lost = process, f"{process.name} failed{self._how(process.name, code)}"
                self.tell_lost()

    def tell_lost(self) -> None:
        """Tells the scheduler, if there is one, of a server without which the job has failed, so
        that no worker waits for it."""
        if self._lost is not None and any(p.role == "scheduler" for p in self.running.values()):
            self.gone(*self._lost)

    def _reason(self, name: str, code: int) -> str:
        """Why the job has failed, of which `name` was the first process to end: that was the cause,
        unless the scheduler names another."""
        scheduler = self.outputs.get("scheduler")
        told = "" if scheduler is None else scheduler.failure
        if told and not told.startswith(f"{name.replace('-', ' ')} "):
            return f"the job has failed: {told}; the logs are in {self.run_dir}"
        _, resume, where = told.partition("; mxopt-launch --resume ")
        return f"{name} failed{self._how(name, code)}; its log is {self.run_dir / name}.log{resume}{where}"

    def _how(self, name: str, code: int) -> str:
        again = self._again[name]
        used = f" after {counted(again, 'restart')}, as many as it may have (--restarts)" if again else ""
        return children.how(code) + used

    def _left_out(self, process: Process, code: int) -> bool:
        """Whether it is a worker without which an asynchronous job goes on, or has come to its end;
        what other workers' exit codes are, and the scheduler's, says whether that is a good one."""
        elastic = any(output.elastic for output in self.outputs.values())
        if process.role != "worker" or self.terminal.until is not None or not elastic:
            return False
        how = "the job goes on without it" if self.at_work() else "the job had come to its end"
        said = f"{process.name} failed{children.how(code)}; {how}"
        self.terminal.say(f"mxopt-launch: {said}, its log is {self.run_dir / process.name}.log")
        if any(p.role == "scheduler" for p in self.running.values()):
            self.gone(process, "")
        return True

    def at_work(self) -> bool:
        """Whether workers still need the servers."""
        return any(p.role == "worker" for p in self.running.values())

    def _unneeded(self, process: Process, code: int) -> bool:
        """Whether it is a server that was killed after the last worker's end; the scheduler's exit
        code says then whether the job had ended well."""
        return process.role == "server" and code < 0 and not self.at_work()

    def _start_again(self, process: Process, code: int) -> bool:
        """Starts a killed server again, if the job still needs it and restarts are left."""
        killed = code < 0 or code in SSH_KILLED
        at_work = self.terminal.until is None and self.at_work()
        elastic = any(output.elastic for output in self.outputs.values())
        left = self._restarts.left(self._again[process.name], elastic)
        if process.role != "server" or not killed or not at_work or left <= 0:
            return False
        self._again[process.name] += 1
        said = f"{process.name} ended{children.how(code)}; it is started again, {left - 1} times more at most"
        self.terminal.say(f"mxopt-launch: {said}")
        self.gone(process, "")
        self.start(process)
        return True

    def _drop(self, output: Output, fd: int) -> None:
        self._selector.unregister(fd)
        output.close()
