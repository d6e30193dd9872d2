"""The heart of a job's member: what it says to the scheduler while it lives, and how it hears of
the job.

It is moved by messages and the time (`turn`, `hear`), while the member itself may be busy or wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore.progress import Progress
from mxopt.kvstore.wire import Frame

UNANSWERED = 64  # beats of which is known when they left


def lapse(interval: float, limit: float) -> float:
    """Seconds without a sign of life from ZeroMQ's thread after which the scheduler closes a
    connection."""
    return min(3 * interval, limit / 2)


class Heart:
    """Sends `beat` every `interval` seconds; the scheduler may be silent for `limit` seconds.

    Attributes
    ----------
    identity : by which the scheduler knows its connection, also a new one
    due : when the next beat is to be sent
    pulse : the last that was heard of the job
    failure : why the job, or this member of it, has failed; "" while it hasn't
    listener : called when something has changed
    wake : called when a beat is due sooner than `due` was
    """

    def __init__(
        self,
        beat: m.Beat,
        interval: float,
        limit: float,
        scheduler: str,
        now: float,
        progress: Progress | None = None,
        lease_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._beat = beat
        self._interval = interval
        self._limit = limit
        self._scheduler = scheduler
        self._progress = progress
        self._lease_clock = lease_clock
        self.identity: bytes = f"heart/{beat.job}/{beat.role}/{beat.rank}/{beat.token}".encode()[:255]
        self._sent: dict[int, float] = {}  # when the beats left that have no answer yet, by the clock of leases
        self._leased_from = lease_clock()  # when the last left that has one
        self._heard = self._turned = now
        self.due: float = now
        self.pulse: m.Pulse | None = None
        self.failure = ""
        self.listener: Callable[[], None] | None = None
        self.wake: Callable[[], None] = lambda: None

    def hasten(self) -> None:
        """Has the next beat sent now."""
        self.due = 0.0
        self.wake()

    def leased(self) -> bool:
        """Whether the member's place is certainly its own: the scheduler gives it to nobody within
        `limit` of a beat, and has answered one that left less than that ago."""
        return self._lease_clock() - self._leased_from < self._limit

    def turn(self, now: float) -> list[Frame] | None:
        """The beat to send now, if one is due."""
        if now - self._turned > 2 * self._interval:  # this process itself has slept: its silence is no one else's
            self._heard = min(now, self._heard + now - self._turned)
        self._turned = now
        if now - self._heard > self._limit:
            self._fail(f"the scheduler at {self._scheduler} has not been heard of for {self._limit:g} s")
        if now < self.due:
            return None
        self.due = now + self._interval
        if self._progress is not None:
            self._beat.progress, self._beat.doing = self._progress.count, self._progress.doing
        self._beat.number += 1
        self._sent[self._beat.number] = self._lease_clock()
        self._sent.pop(self._beat.number - UNANSWERED, None)
        return m.encode(self._beat)

    def hear(self, frames: list[bytes], now: float) -> None:
        """Takes a message of the scheduler."""
        self._heard = now
        try:
            answer = m.decode(frames)
        except ProtocolError:
            return
        if isinstance(answer, m.Pulse):
            sent = self._sent.pop(answer.beat, None)
            if sent is not None:
                self._leased_from = max(sent, self._leased_from)
            answer.beat = 0
            changed = answer != self.pulse
            self.pulse = answer
            if answer.state == "failed":
                self._fail(answer.text)
            elif changed and self.listener:
                self.listener()
        elif isinstance(answer, m.Refused):
            self._fail(answer.text)

    def _fail(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            if self.listener:
                self.listener()
