"""Logs that others can neither forge nor fill: a record is one line, whatever it contains, and
lines are bounded in length and number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TextIO

from mxopt.errors import counted, printable

LINE = 2000  # characters of a record; of an exception's traceback as many again for each line
BURST = 256 << 10  # characters of one level at a time,
RATE = 1 << 10  # and a second in the long run


class Formatter(logging.Formatter):
    """Records as one line each; a traceback follows indented, so that no line of it looks like a
    record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's name
        return _cut(printable(super().formatMessage(record)))

    def formatException(self, ei: object) -> str:  # noqa: N802 logging's name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join("    " + _cut(printable(line)) for line in lines)


class Handler(logging.StreamHandler):  # type: ignore[type-arg]  # takes its argument from Python 3.11 on only
    """Writes records to `stream`, of each level no more than BURST characters at once and RATE a
    second; then says how many it has left out."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._room: dict[int, tuple[float, float]] = {}  # by level: characters, and when that was
        self._left_out: dict[int, int] = {}

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record; "" where there is no room for it."""
        text, now, level = super().format(record), self._clock(), record.levelno
        room, since = self._room.get(level, (BURST, now))
        room = min(BURST, room + (now - since) * RATE)
        if len(text) >= room:
            self._room[level] = room, now
            self._left_out[level] = self._left_out.get(level, 0) + 1
            return ""
        self._room[level] = room - len(text) - 1, now
        left_out = self._left_out.pop(level, 0)
        return f"{text} ({left_out} lines before this one were too many, and left out)" if left_out else text

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record if there is room for it."""
        try:
            text = self.format(record)
            if text:
                self.stream.write(text + "\n")
                self.flush()
        except Exception:
            self.handleError(record)


def start(stream: TextIO, who: str, level: str) -> None:
    """Sends this process's log to `stream`, with `who` in each line."""
    logging.basicConfig(level=level, handlers=[Handler(stream)])
    call(who)


def call(who: str) -> None:
    """Changes the name in the lines of this process's log to `who`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.setFormatter(Formatter(f"%(asctime)s {who} %(levelname)s %(message)s"))


def _cut(text: str) -> str:
    return text if len(text) <= LINE else f"{text[:LINE]}... ({counted(len(text), 'character')})"
