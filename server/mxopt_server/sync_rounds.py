"""Rounds of all workers together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mxopt.kvstore.wire import Key
from mxopt.typing import Document, Plain
from mxopt_server.contributions import ALL, Contribution, difference, missing
from mxopt_server.rounds import Rounds

if TYPE_CHECKING:
    from mxopt_server.members import Members


class Sync(Rounds):
    """An update takes what all workers push for a round (`dist_sync`)."""

    apart = False

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.done = 0  # the last round that is over
        self.queues: list[deque[Contribution]] = [deque() for _ in range(members.workers)]  # for those from there on

    def alike(self, other: Rounds) -> bool:
        return isinstance(other, Sync) and (self.done, self.errors) == (other.done, other.errors)

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

    def turn(self) -> tuple[int, list[Contribution], Exception | None] | None:
        heads = [queue[0] for queue in self.queues if queue]
        if not heads:
            return None
        complete = len(heads) == len(self.queues)
        wrong = difference(heads) if len(heads) > 1 else None
        return (self.done + 1, heads, wrong) if complete or wrong is not None else None

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
