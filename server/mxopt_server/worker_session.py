"""One worker, as a server knows it: its numbers, what waits, what has come in part, what it may ask
for again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.wire import Frame, Key
from mxopt_server.contributions import Request
from mxopt_server.latency import Latency
from mxopt_server.told import Told

CREDIT = 2 * wire.WINDOW  # bytes of a worker's that wait, and of answers that it hasn't read; it keeps within half


@dataclass
class Half:
    """Something that comes in several messages, as far as it has come."""

    what: tuple[str, Key]  # the message's name, and the key or number it is about
    total: int  # bytes, or rows
    size: int  # of these, how much is here
    buffers: list[np.ndarray]  # for the frames, joined; what hasn't come of them takes no memory


class Session:
    """A worker's requests to this server.

    Attributes
    ----------
    expects : the next number; those before it have been taken
    waiting : the requests that are to be answered later
    refused : the refusals that the worker may not have heard of
    told : the optimizer it counts on, as it has said last
    half : what is coming in; one thing at a time
    document : the states that it is fetching, and their key

    `waited` is told how long requests have waited, by `clock`.
    """

    def __init__(self, rank: int, epoch: int, clock: Callable[[], float], waited: Latency) -> None:
        self.rank, self.epoch, self.route = rank, epoch, b""
        self._clock, self._waited = clock, waited
        self.expects = 1
        self._ahead = (0, 0)  # what was expected when the last number came that was too high, and that number
        self.waiting: dict[int, Request] = {}
        self.refused: dict[int, m.Refused] = {}
        self.told: Told | None = None
        self.half: Half | None = None
        self.document: tuple[Key, bytes] | None = None
        self.step = 0  # the last step of its training that it has said
        self.requests = 0
        self.seen = 0.0  # when it said Hello
        self._sent = self._read = self._waiting_bytes = 0

    def is_gap(self, number: int) -> bool:
        """Whether a number that is too high is the first behind a gap, not one of those that follow
        it: of these the worker has been told, and what it sends again begins lower."""
        expects, last = self._ahead
        self._ahead = (self.expects, number)
        return expects != self.expects or number <= last

    # What waits.

    def wait(
        self,
        seq: int,
        parts: Sequence[Any],
        number: int,
        nbytes: int,
        answer: Answer,
        over: Callable[[Request], None],
        pushes: bool,
    ) -> Request:
        """Keeps a request about round `number` of `parts` until it is answered, by `answer`; `over`
        is called when that can be."""
        made = self.waiting[seq] = Request(self.rank, seq, parts, number, nbytes, answer, over, pushes, self._clock())
        self._waiting_bytes += nbytes
        return made

    def needs_no_wait(self) -> None:
        """A request that might have had to wait can be answered at once."""
        self._waited.add(0.0)

    def answered(self, seq: int, nbytes: int = 0) -> None:
        """Forgets a request, whose answer has so many bytes of data."""
        request = self.waiting.pop(seq, None)
        if request is not None:
            self._waiting_bytes -= request.nbytes
            self._waited.add(self._clock() - request.since)
        self._sent += nbytes

    def refuse(self, refused: m.Refused) -> None:
        """Keeps a refusal for as long as its request can be without an answer."""
        self.answered(refused.seq)
        self.refused[refused.seq] = refused
        while (first := next(iter(self.refused))) <= self.expects - 1 - wire.REQUESTS:
            del self.refused[first]

    # Credit.

    def greeted(self, nbytes: int) -> None:
        """The worker says Hello, having read so many bytes: what it hasn't may be lost, and is
        counted no more."""
        self._sent = self._read = nbytes

    def may_ask(self, read: int) -> bool:
        """Whether another request is taken, of a worker that has read so many bytes of answers. One
        that keeps within its window always may."""
        if read > self._read:
            self._read = read
        return self._waiting_bytes + self._sent - self._read <= CREDIT and len(self.waiting) <= wire.REQUESTS

    # What comes in several messages.

    def gather(
        self, what: tuple[str, Key], offset: int, total: int, size: int, frames: Sequence[Frame]
    ) -> list[Frame] | None:
        """Takes `size` of the `total` of something, which follow on `offset` before them. Returns
        the frames with the last of it, joined; None before. Raises ProtocolError if it doesn't
        follow on: all of it is refused then."""
        half, self.half = self.half, None
        if size > total - offset or (size == 0 and total > 0):
            raise ProtocolError(f"{what[0]} of {what[1]!r}: {size} after {offset} of {total}")
        if offset == 0 and size == total:
            return list(frames)
        if offset == 0:
            half = Half(what, total, 0, [np.empty(wire.size_of(frame) // size * total, np.uint8) for frame in frames])
        elif half is None or (half.what, half.total, half.size) != (what, total, offset):
            here = half.size if half is not None and half.what == what else 0
            raise ProtocolError(f"{what[0]} of {what[1]!r}: what comes after {offset} of {total} came, {here} are here")
        for buffer, frame in zip(half.buffers, frames, strict=True):
            each = wire.size_of(frame) // size
            buffer[offset * each : (offset + size) * each] = np.frombuffer(wire.buffer_of(frame), np.uint8)
        half.size += size
        if half.size == total:
            return list(half.buffers)
        self.half = half
        return None

    def counts_on(self, number: int) -> Told | None:
        """The optimizer by the number of its config, which must be the last; None for 0."""
        if number == 0:
            return None
        if self.told is None or self.told.number != number:
            raise ProtocolError(f"the optimizer's config number {number} hasn't come, or another has since")
        return self.told


Handlers = dict[type, Callable[[Session, Any], None]]  # of requests, by their class
Answer = Callable[[Session, int, Sequence[Any]], None]  # of a request about parts, by its number
