"""Rounds: when what the workers push becomes an update, and when who waits for it is answered.

A `Group` is the parts that workers push together in one message: one piece of a large array, or many small keys. As
long
as everyone groups the same keys, a whole message is one contribution. A message that groups them otherwise dissolves
the group into single parts, with everything that is pending in it, so that the outcome is that of single pushes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mxopt.sparse import RowSparse
from mxopt_server.entries import Part

DEPTH = 4  # rounds a worker may be ahead before its pushes are no longer confirmed at once


class Request:
    """Something a worker waits for. Answered when nothing is `missing` any more."""

    __slots__ = ("answer", "missing", "rank", "seq")

    def __init__(self, rank: int, seq: int, answer: Callable[[Request], None]) -> None:
        self.rank, self.seq, self.answer, self.missing = rank, seq, answer, 0

    def met(self) -> None:
        """One of the things it waits for has come."""
        self.missing -= 1
        if self.missing == 0:
            self.answer(self)


class RoundError(Exception):
    """A round's update has failed, for the reason that is its cause: all `requests` that wait for it are to be told."""

    def __init__(self, requests: list[Request]) -> None:
        super().__init__()
        self.requests = requests


@dataclass(slots=True)
class Contribution:
    """What one worker pushed: `value` is flat over a group's parts, or row-sparse over a whole entry."""

    rank: int
    value: Any
    config: dict[str, Any] | None
    update: int
    request: Request | None

    def cut(self, start: int, stop: int, part: Part, first: bool) -> Contribution:
        """What of it is for one part."""
        value = self.value
        if isinstance(value, RowSparse):
            a, b = np.searchsorted(value.indices, (part.start, part.stop))
            value = RowSparse(value.data[a:b], value.indices[a:b] - part.start, part.shape)
        else:
            value = value[start:stop]
        return Contribution(self.rank, value, self.config if first else None, self.update, self.request)


class Rules(Protocol):
    """What a group needs of its table."""

    mode: str
    workers: int
    staleness: int
    ended: set[int]

    def apply(self, group: Group, contributions: Sequence[Contribution], rank: int) -> bool: ...


class Group:
    """Parts that are pushed together, and the rounds that are under way for them."""

    __slots__ = (
        "counts", "dtype", "flats", "have", "indices", "keys", "offsets", "parts", "queues", "rules", "size", "slices",
        "waiting", "weights",
    )  # fmt: skip

    def __init__(self, rules: Rules, parts: Sequence[Part], keys: tuple[Any, ...]) -> None:
        self.rules, self.parts, self.keys = rules, list(parts), keys
        self.queues: list[deque[Contribution]] = [deque() for _ in range(rules.workers)]
        self.counts = [0] * rules.workers  # pushes of each worker
        self.have = 0  # workers that have pushed for the round under way
        self.waiting: list[Request] = []  # pulls
        self.offsets = [0]
        for part in self.parts:
            self.offsets.append(self.offsets[-1] + part.size)
            part.group = self
        self.size, self.dtype = self.offsets[-1], self.parts[0].weight.dtype
        self.slices = [slice(a, b) for a, b in zip(self.offsets, self.offsets[1:], strict=False)]
        self.indices = [part.index for part in self.parts]
        self.weights = [part.weight for part in self.parts]
        self.flats = [part.weight.reshape(-1) for part in self.parts]

    def split(self, value: np.ndarray) -> list[np.ndarray]:
        """A flat array over the parts as one of each part's shape."""
        return [
            value[s] if w.ndim == 1 else value[s].reshape(w.shape)
            for s, w in zip(self.slices, self.weights, strict=True)
        ]

    def values(self) -> np.ndarray:
        """The weights, flat, one after the other: the array itself where there is only one."""
        return self.flats[0] if len(self.flats) == 1 else np.concatenate(self.flats)

    def push(self, contribution: Contribution) -> None:
        """Takes a worker's contribution; updates if the round is complete, or at once where nobody is waited for."""
        rank = contribution.rank
        self.counts[rank] += 1
        if self.rules.mode == "sync":
            queue = self.queues[rank]
            queue.append(contribution)
            if len(queue) == 1:
                self.have += 1
                if self.have == self.rules.workers:
                    self._round()
            return
        done = self.rules.apply(self, [contribution], rank)
        if done and contribution.request is not None:
            self._wait(contribution.request)
        if self.waiting:
            self.settle()

    def _round(self) -> None:
        while self.have == self.rules.workers:
            contributions = [queue.popleft() for queue in self.queues]
            self.have = sum(1 for queue in self.queues if queue)
            try:
                done = self.rules.apply(self, contributions, -1)
            except Exception as error:
                raise RoundError([c.request for c in contributions if c.request is not None]) from error
            if done:
                for contribution in contributions:
                    if contribution.request is not None:
                        contribution.request.met()
        if self.waiting:
            self.settle()

    def settled(self, rank: int) -> bool:
        """Whether a worker may see the values: all its own pushes are in them, and it isn't too far ahead."""
        if self.rules.mode == "sync":
            return not self.queues[rank] and not self._assembling()
        if self.rules.mode == "ssp":
            others = [n for r, n in enumerate(self.counts) if r not in self.rules.ended]
            return self.counts[rank] - min(others, default=0) <= self.rules.staleness
        return True

    def _assembling(self) -> bool:
        return any(part.entry.assembling for part in self.parts)

    def _wait(self, request: Request) -> None:
        if self.settled(request.rank):
            request.met()
        else:
            self.waiting.append(request)

    def settle(self) -> None:
        """Answers the pulls that need wait no longer."""
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            self._wait(request)

    def stuck(self) -> list[Request]:
        """The requests that wait for a worker that has ended; they are no longer waited for."""
        lost = [r for r in self.rules.ended if not self.queues[r]]
        if self.rules.mode != "sync" or not lost or (not self.have and not self.waiting):
            return []
        found = [c.request for queue in self.queues for c in queue if c.request is not None] + self.waiting
        self.waiting = []
        for queue in self.queues:
            for contribution in queue:
                contribution.request = None
        return found

    @property
    def pending(self) -> bool:
        return self.have > 0 or bool(self.waiting)

    def dissolve(self) -> list[Group]:
        """Single groups of the same parts, with what is pending in this one."""
        singles = [Group(self.rules, [part], ((part.entry.key, part.piece),)) for part in self.parts]
        for k, (single, part) in enumerate(zip(singles, self.parts, strict=True)):
            single.counts, single.have = list(self.counts), self.have
            start, stop = self.offsets[k], self.offsets[k + 1]
            for mine, queue in zip(single.queues, self.queues, strict=True):
                mine.extend(c.cut(start, stop, part, k == 0) for c in queue)
        more = len(singles) - 1
        for queue in self.queues:
            for contribution in queue:
                if contribution.request is not None:
                    contribution.request.missing += more
        for request in self.waiting:
            request.missing += more
            for single in singles:
                single.waiting.append(request)
        return singles
