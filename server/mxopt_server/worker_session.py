"""One worker, as a server knows it: its numbers, its answers, and what may be asked for again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.wire import Frame, Key
from mxopt_server.answers import Answers
from mxopt_server.arriving import Arriving
from mxopt_server.entries import Part, Request
from mxopt_server.latency import Latency
from mxopt_server.told import Told

CREDIT = 2 * wire.WINDOW  # bytes of a worker's that wait, and of answers that it hasn't read; it keeps within half
LATER, LATER_BYTES = 16, 3 << 20  # pushes of a worker, and their bytes, whose Done waits for another answer


class Session:
    """A worker's requests to this server, answered by `answers`.

    Attributes
    ----------
    expects : the next number; those before it have been taken
    waiting : the requests that are to be answered later
    refused : the refusals that the worker may not have heard of
    told : what optimizers it may count on, by the numbers of their configs: none, and the last that
        it has said
    arriving : what it is sending in several messages
    document : the states that it is fetching, and their key; None for the optimizer

    `waited` is told how long requests have waited, by `clock`.
    """

    def __init__(self, rank: int, epoch: int, answers: Answers, clock: Callable[[], float], waited: Latency) -> None:
        self.rank, self.epoch, self.route = rank, epoch, b""
        self._answers, self._clock, self._waited = answers, clock, waited
        self.expects = 1
        self._ahead = (0, 0)  # what was expected when the last number came that was too high, and that number
        self.waiting: dict[int, Request] = {}
        self.refused: dict[int, m.Refused] = {}
        self._later: dict[int, int] = {}  # the bytes of pushes that are answered with the next answer, by number
        self.told: dict[int, Told | None] = {0: None}
        self.arriving = Arriving()
        self.document: tuple[Key | None, bytes] | None = None
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

    # Credit.

    def greeted(self, nbytes: int) -> None:
        """The worker says Hello, having read this number of bytes: what it hasn't may be lost, and
        is counted no more."""
        self._sent = self._read = nbytes

    def may_ask(self, read: int) -> bool:
        """Whether another request is taken of a worker that has read this number of bytes of
        answers. One that keeps within its window always may."""
        if read > self._read:
            self._read = read
        return self._waiting_bytes + self._sent - self._read <= CREDIT and len(self.waiting) <= wire.REQUESTS

    # Answers.

    def when_seen(
        self,
        seq: int,
        parts: Sequence[Part],
        number: int,
        nbytes: int,
        answer: Answer,
        pushes: bool = False,
        free: bool = False,
    ) -> None:
        """Answers a request by `answer` when its worker may see its round `number` of `parts`: now,
        or when that is so; it keeps `nbytes` till then. One that `pushes` is refused where the
        round has failed; one that is `free` is answered by Done where its worker asks."""
        groups = list({id(part.group): part.group for part in parts if part.group is not None}.values())
        request = Request(self.rank, seq, parts, number, nbytes, answer, self._over, pushes, free, self._clock())
        self.waiting[seq] = request
        self._waiting_bytes += nbytes
        request.missing = len(groups) + 1
        for group in groups:
            if group.settled(self.rank, number):
                request.met(group.rounds.error(self.rank, number))
            else:
                group.waiting.append(request)
        request.met()

    def _over(self, request: Request) -> None:
        """A request needs wait no longer."""
        if self.waiting.get(request.seq) is not request:
            return  # it has been refused since
        if request.error is not None:
            self.refuse(request.seq, request.error, request.parts[0].entry.key)
        else:
            request.answer(self, request.seq, request.parts)

    def done(self, seq: int) -> None:
        """Answers a request that needs no data."""
        self.give(m.Done(seq))

    def later(self, seq: int, nbytes: int) -> None:
        """Answers a push of this size in bytes with the next answer, since each wakes the worker;
        or once there are many, or the worker says Hello."""
        self._later[seq] = nbytes
        if len(self._later) >= LATER or sum(self._later.values()) >= LATER_BYTES:
            self.hurry()

    def release(self) -> None:
        """Answers what needn't wait, since the worker asks: it may be waiting for just that."""
        for request in [request for request in self.waiting.values() if request.free]:
            self.done(request.seq)
        self.hurry()

    def hurry(self) -> None:
        """Answers what waits for another answer."""
        if self._later:
            seq, *also = self._later
            self._later = {}
            self.give(m.Done(seq, 0, also))

    def give(self, answer: Any) -> None:
        """Answers a request with this message."""
        if self.waiting:
            self._forget(answer.seq)
        if self._later and isinstance(answer, m.Done | m.Values):
            answer.also, self._later = list(self._later), {}
        self._answers.leaving.append((self.route, answer))

    def room(self, nbytes: int) -> Frame:
        """Memory for the data of an answer."""
        return self._answers.room(self.route, nbytes)

    def data(self, answer: m.Values | m.Chunk) -> None:
        """Answers a request with data."""
        if answer.seq not in self.waiting:
            self._waited.counts[0] += 1
        self.give(answer)
        nbytes = len(answer.data[0])
        self._sent += nbytes
        self._answers.sent += nbytes
        if nbytes >= wire.SMALL:
            self._answers.hasten()

    def refuse(self, seq: int, error: Exception, key: Key | None) -> None:
        """A request can't be met. The refusal is kept for as long as its request can be without an
        answer."""
        refused = self.refused[seq] = self._answers.refused(f"worker {self.rank}", seq, error, key)
        while (first := next(iter(self.refused))) <= self.expects - 1 - wire.REQUESTS:
            del self.refused[first]
        self.give(refused)

    def _forget(self, seq: int) -> None:
        """A request waits no longer."""
        request = self.waiting.pop(seq, None)
        if request is not None:
            self._waiting_bytes -= request.nbytes
            self._waited.add(self._clock() - request.since)


Handlers = dict[type, Callable[[Session, Any], None]]  # of requests, by their class
Answer = Callable[[Session, int, Sequence[Part]], None]  # of a request about parts, by its number
