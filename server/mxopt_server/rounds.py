"""Rounds: which pushes make an update, and which of a worker's pushes the values have.

An object of these classes keeps the rounds of parts that are pushed together; it knows neither the
parts nor the optimizer. A worker numbers its pushes of a part from its present round on: a number
that was taken is known, the next is new, and one beyond is an error: a push is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mxopt.kvstore import messages as m
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.wire import LARGEST, Key
from mxopt.typing import Document, Plain
from mxopt_server.contributions import ALL, Contribution, difference, missing
from mxopt_server.members import Members

# Of a round that is over: the worker or ALL, its number, its pushes in the order of the ranks, and
# why they make no update.
Turn = tuple[int, int, list[Contribution], Exception | None]

KEPT_ERRORS = 64  # rounds that failed, whose errors are kept for workers that push late or ask again


class Rounds:
    """Every push is an update (`dist_async`)."""

    def __init__(self, members: Members, begun: int = 0) -> None:
        self.members = members
        self._ready: Contribution | None = None
        self.counts = [begun] * members.workers  # the last push that was taken of each worker
        self.epochs: dict[int, int] = {}  # of the workers' processes when they pushed last
        # Workers whose pushes since a snapshot are lost.
        self.behind = set(range(members.workers)) if members.lossy and members.apart else set()
        self.errors: dict[tuple[int, int], Exception] = {}  # (worker or ALL, number): why there was no update

    def begin(self, rank: int, others: Sequence[int]) -> None:
        """Notes that a worker has come back in another process, which numbers its pushes from the
        round that it was told."""
        self.behind.discard(rank)

    def alike(self, other: Rounds) -> bool:
        """Whether both have come equally far, and nothing is open."""
        return self.counts == other.counts and self._failed() == other._failed()

    def last(self, rank: int) -> int:
        """The last round that has this worker's push."""
        return self.counts[rank]

    def is_new(self, rank: int, number: int, key: Key) -> bool:
        """Whether a worker's push of this number is new. Raises KVStoreError if one before it is
        missing."""
        if self.epochs.get(rank) != self.members.epochs.get(rank):
            return number > self.counts[rank]  # the first of a process is the one after the round that it was told
        last = self.counts[rank]
        if number > last + 1 and rank not in self.behind:
            raise missing(key, rank, number, last)
        return number > last

    def take(self, contribution: Contribution) -> None:
        """Takes a worker's next push."""
        rank, number = contribution.rank, contribution.number
        self.catch_up(rank, number - 1)
        self.counts[rank] = number
        self._ready = contribution

    def catch_up(self, rank: int, number: int) -> None:
        """Counts a worker's pushes up to this one as over: those that aren't here are lost."""
        if rank in self.behind:
            self.behind.remove(rank)
            self.members.lost = min(LARGEST, self.members.lost + max(0, number - self.counts[rank]))
            self.counts[rank] = max(number, self.counts[rank])

    def turn(self) -> Turn | None:
        """The next round that is over; None if there is none. The caller then calls `end`."""
        ready = self._ready
        return None if ready is None else (ready.rank, ready.number, [ready], None)

    def end(self, rank: int, number: int, error: Exception | None) -> None:
        """Ends a round, of a worker or of ALL: its pushes are in the values, or have failed."""
        self.counts[rank] = number
        if rank in self.members.epochs:
            self.epochs[rank] = self.members.epochs[rank]
        self._ready = None
        if error is not None:
            self.fail(rank, number, error)

    def fail(self, rank: int, number: int, error: Exception) -> None:
        """Keeps the error of a round that made no update."""
        self.errors[rank, number] = error
        if len(self.errors) > KEPT_ERRORS:
            del self.errors[next(iter(self.errors))]

    def error(self, rank: int, number: int) -> Exception | None:
        """Why a worker's push made no update."""
        return self.errors.get((rank, number)) if self.errors else None

    def _failed(self) -> dict[tuple[int, int], str]:
        """Why rounds made no update, in words: several parts may have exceptions of their own."""
        return {place: str(error) for place, error in self.errors.items()}

    def has(self, rank: int, number: int) -> bool:
        """Whether a worker's push is over, or lost."""
        return self.counts[rank] >= number or rank in self.behind

    def may_see(self, rank: int, number: int) -> bool:
        """Whether a worker may see now what its push has made of the values."""
        return self.has(rank, number)

    def depth(self, rank: int) -> int:
        """The number of a worker's pushes that wait for others."""
        return 0

    def lacking(self, rank: int) -> list[int]:
        """The workers whose pushes a worker waits for."""
        return []

    def lost(self, rank: int) -> int | None:
        """A worker that has ended without which no further push of `rank` can become an update."""
        return None

    @property
    def open(self) -> list[Contribution]:
        """The pushes that wait for others, each worker's in their order."""
        return []

    def record(self) -> Plain:
        """Its state as plain data, which `restore` takes."""
        errors = [[rank, n, type(error).__name__, str(error)] for (rank, n), error in self.errors.items()]
        return {"counts": list(self.counts), "epochs": dict(self.epochs), "errors": errors}

    def restore(self, saved: Document) -> None:
        """Restores what `record` returned."""
        self.counts, self.epochs = list(saved["counts"]), dict(saved["epochs"])
        self.errors = {(rank, n): error_of(m.Refused(0, code, text, None)) for rank, n, code, text in saved["errors"]}

    def part(self, cut: Callable[[Contribution], Contribution]) -> Rounds:
        """The rounds of a single part; `cut` makes its share of a push."""
        made = type(self)(self.members)
        made.behind = set(self.behind)
        made.counts, made.errors, made.epochs = list(self.counts), dict(self.errors), dict(self.epochs)
        return made


class Ssp(Rounds):
    """The same, but a worker that is too far ahead of the slowest waits (`dist_ssp`)."""

    def begin(self, rank: int, others: Sequence[int]) -> None:
        super().begin(rank, others)
        if others:
            self.counts[rank] = min(self.counts[other] for other in others)

    def may_see(self, rank: int, number: int) -> bool:
        others = [n for r, n in enumerate(self.counts) if r not in self.members.ended]
        return self.has(rank, number) and self.counts[rank] - min(others, default=0) <= self.members.staleness

    def lacking(self, rank: int) -> list[int]:
        least, ended = self.counts[rank] - self.members.staleness, self.members.ended
        return [other for other, count in enumerate(self.counts) if count < least and other not in ended]


class Sync(Rounds):
    """An update takes what all workers push for a round (`dist_sync`)."""

    def __init__(self, members: Members, begun: int = 0) -> None:
        super().__init__(members, begun)
        self.done = begun  # the last round that is over
        self.queues: list[deque[Contribution]] = [deque() for _ in range(members.workers)]  # for those from there on

    def alike(self, other: Rounds) -> bool:
        return isinstance(other, Sync) and (self.done, self._failed()) == (other.done, other._failed())

    def begin(self, rank: int, others: Sequence[int]) -> None:
        self.queues[rank].clear()
        self.counts[rank] = self.done

    def is_new(self, rank: int, number: int, key: Key) -> bool:
        count = self.counts[rank]
        last = count if count > self.done else self.done
        if number > last + 1:
            raise missing(key, rank, number, last)
        return number > count

    def last(self, rank: int) -> int:
        return max(self.counts[rank], self.done)

    def take(self, contribution: Contribution) -> None:
        rank = contribution.rank
        self.counts[rank] = contribution.number
        if contribution.number > self.done:  # else it comes late to a round that has ended without it
            self.queues[rank].append(contribution)

    def turn(self) -> Turn | None:
        heads = [queue[0] for queue in self.queues if queue]
        if not heads:
            return None
        complete = len(heads) == len(self.queues)
        wrong = difference(heads) if len(heads) > 1 else None
        return (ALL, self.done + 1, heads, wrong) if complete or wrong is not None else None

    def end(self, rank: int, number: int, error: Exception | None) -> None:
        self.done = number
        for each, queue in enumerate(self.queues):
            if queue:
                queue.popleft()
            elif error is None:
                self.counts[each] = max(self.counts[each], number)
        if error is not None:
            self.fail(ALL, number, error)

    def error(self, rank: int, number: int) -> Exception | None:
        return self.errors.get((ALL, number)) if self.errors else None

    def has(self, rank: int, number: int) -> bool:
        return self.done >= number

    may_see = has

    def depth(self, rank: int) -> int:
        return len(self.queues[rank])

    def lacking(self, rank: int) -> list[int]:
        return [other for other, queue in enumerate(self.queues) if not queue] if self.queues[rank] else []

    def lost(self, rank: int) -> int | None:
        return next((r for r in sorted(self.members.ended) if r != rank and not self.queues[r]), None)

    @property
    def open(self) -> list[Contribution]:
        return [contribution for queue in self.queues for contribution in queue]

    def record(self) -> Plain:
        return {**super().record(), "counts": [self.done]}

    def restore(self, saved: Document) -> None:
        super().restore(saved)
        self.done = saved["counts"][0]
        self.counts = [self.done] * len(self.queues)

    def part(self, cut: Callable[[Contribution], Contribution]) -> Sync:
        made = Sync(self.members)
        made.counts, made.errors, made.done = list(self.counts), dict(self.errors), self.done
        for mine, queue in zip(made.queues, self.queues, strict=True):
            mine.extend(map(cut, queue))
        return made


MODES: dict[str, type[Rounds]] = {"sync": Sync, "async": Rounds, "ssp": Ssp}
