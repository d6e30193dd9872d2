"""Copies the output of a job's processes: each to its own log, and all to the terminal, line by
line."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from pathlib import Path

READ_BYTES = 1 << 16  # bytes read at a time; a longer line is shown in parts of this size
PIPE = 4096  # what can be written without waiting to a pipe or terminal that is ready


class Terminal:
    """Where lines are shown: `fd`, this process's standard output for None. Writing waits for
    whoever reads it, but not for longer than `until`, nor once `wake` (a file descriptor) has
    something to read."""

    def __init__(self, wake: int, fd: int | None = None) -> None:
        self.until: float | None = None  # by time.monotonic(); what can't be written by then is dropped
        self.gone = False  # whether the reader has gone away
        self._wake, self._fd, self._open = wake, sys.stdout.fileno() if fd is None else fd, True

    def say(self, line: str | bytes) -> None:
        """Writes a line."""
        data = memoryview((line.encode(errors="replace") if isinstance(line, str) else line) + b"\n")
        while data and self._open and self._ready():
            try:
                data = data[os.write(self._fd, data[:PIPE]) :]
            except OSError as error:
                # A terminal that was closed doesn't end a job that ignores SIGHUP; nor does a full
                # disk.
                self._open, self.gone = False, error.errno == errno.EPIPE

    def _ready(self) -> bool:
        """Waits until something can be written. Returns False if it shouldn't wait any longer."""
        while True:
            left = None if self.until is None else max(0.0, self.until - time.monotonic())
            wake = [self._wake] if self.until is None else []
            woken, ready, _ = select.select(wake, [self._fd], [], left)
            if ready:
                return True
            if woken or left is not None:
                return False


class Output:
    """What a process called `name` writes, to `pipe` where it has one: copied to `log`, and to the
    terminal with its name before each line; `again` to a log that is there. Of those that are not
    `shown` in full, INFO lines stay in the log; `listening` is where it says it listens, `failure`
    why the job has failed, as a scheduler says, and `elastic` whether that does without a worker
    that fails."""

    def __init__(
        self, name: str, pipe: int | None, log: Path, terminal: Terminal, shown: bool, again: bool = False
    ) -> None:
        self.listening = self.failure = ""
        self.elastic = False
        self._name, self._pipe, self._terminal, self._shown = name, pipe, terminal, shown
        self._rest = b""  # the line that isn't complete
        self._path = log
        self._log: int | None = None
        try:
            self._log = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if again else os.O_TRUNC), 0o666)
        except OSError as error:
            self._lost(error)

    def copy(self) -> bool:
        """Copies what is in the pipe; returns False at the end of the output."""
        assert self._pipe is not None
        data = os.read(self._pipe, READ_BYTES)
        self.take(data)
        return bool(data)

    def take(self, data: bytes) -> None:
        """Takes some output; none at its end."""
        self._keep(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if self._rest and (len(self._rest) >= READ_BYTES or not data):
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._show(line.rstrip(b"\r"))

    def close(self) -> None:
        """Closes pipe and log."""
        if self._pipe is not None:
            os.close(self._pipe)
        if self._log is not None:
            os.close(self._log)

    def _show(self, line: bytes) -> None:
        if not self._shown:
            if line.startswith(b"listening on "):
                self.listening = line.removeprefix(b"listening on ").decode(errors="replace")
                return
            if b" INFO " in line:
                self.elastic |= b" is complete: " in line and line.endswith((b", dist_async", b", dist_ssp"))
                return
            _, said, why = line.partition(b" scheduler ERROR the job has failed: ")
            if said:
                self.failure = why.decode(errors="replace")
        self._terminal.say(b"[" + self._name.encode() + b"] " + line)

    def _keep(self, data: bytes) -> None:
        left = memoryview(data)
        while left and self._log is not None:
            try:
                left = left[os.write(self._log, left) :]
            except OSError as error:
                os.close(self._log)
                self._log = None
                self._lost(error)

    def _lost(self, error: OSError) -> None:
        self._terminal.say(f"mxopt-launch: the log {self._path} can't be written, its output is only here: {error}")
