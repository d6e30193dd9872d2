"""Rounds: which pushes make an update, and when who waits for it may be answered.

An object of these classes keeps the rounds of parts that are pushed together; it knows neither the parts nor the
optimizer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

ALL = -1  # as a worker: all of them together
DEPTH = 4  # rounds a worker may be ahead before its pushes are no longer confirmed at once


class Request:
    """Something a worker waits for. Answered when nothing is `missing` any more."""

    __slots__ = ("answer", "missing", "nbytes", "parts", "rank", "seq", "since")

    def __init__(
        self, rank: int, seq: int, parts: Any, nbytes: int, answer: Callable[[Request], None], since: float
    ) -> None:
        self.rank, self.seq, self.answer, self.missing = rank, seq, answer, 0
        self.parts = parts  # what it is about
        self.nbytes = nbytes  # of what it keeps in memory, or of its answer
        self.since = since  # when it began to wait

    def met(self) -> None:
        """One of the things it waits for has come."""
        self.missing -= 1
        if self.missing == 0:
            self.answer(self)


@dataclass(slots=True)
class Contribution:
    """What one worker pushed: `value` is flat over the parts, or row-sparse over a whole entry."""

    rank: int
    value: Any
    config: dict[str, Any] | None
    update: int
    request: Request | None


@dataclass
class Members:
    """The workers of the job, and how they go together: what all rounds of a server have in common."""

    workers: int
    mode: str = ""  # one of MODES, said by the first worker; "" before
    staleness: int = 0  # of ssp: how many pushes a worker may be ahead of the slowest
    ended: set[int] = field(default_factory=set)

    @property
    def kind(self) -> type[Rounds]:
        """The rounds of this mode."""
        return MODES[self.mode]


class Rounds:
    """Every push is an update (`dist_async`)."""

    apart: ClassVar[bool] = True  # an update is of one worker

    def __init__(self, members: Members) -> None:
        self.members = members
        self.counts = [0] * members.workers  # pushes of each worker

    def push(self, contribution: Contribution) -> list[Contribution]:
        """Takes a worker's push; returns those that make an update together, in the order of the ranks."""
        self.counts[contribution.rank] += 1
        return [contribution]

    def may_hear(self, rank: int) -> bool:
        """Whether a worker may be told that its push is in the values."""
        return True

    def settled(self, rank: int) -> bool:
        """Whether a worker may see the values: all its own pushes are in them, and it isn't too far ahead."""
        return self.may_hear(rank)

    def depth(self, rank: int) -> int:
        """How many pushes of a worker wait for others."""
        return 0

    def lacking(self, rank: int) -> list[int]:
        """The workers whose pushes a worker waits for."""
        return []

    def lost(self, rank: int) -> int | None:
        """A worker that has ended, and without which no further push of `rank` can become an update."""
        return None

    @property
    def open(self) -> list[Contribution]:
        """The pushes that wait for others, each worker's in their order."""
        return []

    def part(self, cut: Callable[[Contribution], Contribution]) -> Rounds:
        """The rounds of one of the parts alone; `cut` makes what of a push is for it."""
        made = type(self)(self.members)
        made.counts = list(self.counts)
        return made


class Ssp(Rounds):
    """The same, but a worker that is too far ahead of the slowest waits (`dist_ssp`)."""

    def may_hear(self, rank: int) -> bool:
        others = [n for r, n in enumerate(self.counts) if r not in self.members.ended]
        return self.counts[rank] - min(others, default=0) <= self.members.staleness

    def lacking(self, rank: int) -> list[int]:
        least, ended = self.counts[rank] - self.members.staleness, self.members.ended
        return [other for other, count in enumerate(self.counts) if count < least and other not in ended]


class Sync(Rounds):
    """An update takes what all workers push: each worker's n-th push belongs to the n-th round (`dist_sync`)."""

    apart = False

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.queues: list[deque[Contribution]] = [deque() for _ in range(members.workers)]
        self.have = 0  # workers that have pushed for the round under way

    def push(self, contribution: Contribution) -> list[Contribution]:
        self.counts[contribution.rank] += 1
        queue = self.queues[contribution.rank]
        queue.append(contribution)
        if len(queue) > 1:
            return []
        self.have += 1
        if self.have < len(self.queues):
            return []
        complete = [queue.popleft() for queue in self.queues]
        self.have = sum(1 for queue in self.queues if queue)
        return complete

    def settled(self, rank: int) -> bool:
        return not self.queues[rank]

    def depth(self, rank: int) -> int:
        return len(self.queues[rank])

    def lacking(self, rank: int) -> list[int]:
        return [other for other, queue in enumerate(self.queues) if not queue] if self.queues[rank] else []

    def lost(self, rank: int) -> int | None:
        return next((r for r in sorted(self.members.ended) if r != rank and not self.queues[r]), None)

    @property
    def open(self) -> list[Contribution]:
        return [contribution for queue in self.queues for contribution in queue]

    def part(self, cut: Callable[[Contribution], Contribution]) -> Sync:
        made = Sync(self.members)
        made.counts, made.have = list(self.counts), self.have
        for mine, queue in zip(made.queues, self.queues, strict=True):
            mine.extend(map(cut, queue))
        return made


MODES: dict[str, type[Rounds]] = {"sync": Sync, "async": Rounds, "ssp": Ssp}
