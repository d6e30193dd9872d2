"""Signals that tell a process to end: a launcher its job, a scheduler or server itself."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator


class Interrupted(Exception):  # noqa: N818 no error
    """A signal told the launcher to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """A file descriptor from which the numbers of the signals can be read that ask for the end. One
    that was ignored (nohup) stays so."""
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {n: signal.getsignal(n) for n in wanted if signal.getsignal(n) != signal.SIG_IGN}
    wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, lambda number, frame: None)
    try:
        yield read.fileno()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        read.close()
        write.close()


class Stopped(BaseException):
    """A signal asked the process to end."""


class Stop:
    """SIGTERM and SIGINT end the process in an orderly way: they raise Stopped, but while it is
    `held` the first is only noted until `check`, and a second raises. (Raised wherever the loop is,
    it might come within a finalizer, or where ZeroMQ calls Python, and be lost there.)"""

    def __init__(self) -> None:
        self.held = False
        self._asked = ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._come)

    def _come(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if not self.held or self._asked:
            raise Stopped(name)
        self._asked = name

    def check(self) -> None:
        """Raises Stopped if a signal was noted."""
        if self._asked:
            raise Stopped(self._asked)
