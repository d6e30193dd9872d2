"""Requests that wait for room on a connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mxopt.kvstore.wire import Key

R = TypeVar("R")


@dataclass(slots=True)
class Queued(Generic[R]):
    """A request in a backlog. `keys` are those that it is about; None means all."""

    request: R
    keys: frozenset[Key] | None
    priority: int
    nbytes: int


class Backlog(Generic[R]):
    """Requests in the order in which they are to be sent: the highest priority first, equal ones as
    they came.

    A request never overtakes another of the same key; what it would have to overtake is raised to
    its priority.
    """

    def __init__(self) -> None:
        self.nbytes: int = 0
        self.waiting: list[Queued[R]] = []  # as they came
        self._priorities: Counter[int] = Counter()  # how many wait with each; usually all with one

    def __len__(self) -> int:
        return len(self.waiting)

    def __iter__(self) -> Iterator[R]:
        return (waiting.request for waiting in self.waiting)

    def put(self, request: R, keys: frozenset[Key] | None, priority: int, nbytes: int) -> None:
        """Adds a request. One without `keys` is about all keys: it overtakes none, and none
        overtakes it."""
        if self.waiting and priority > min(self._priorities):
            self._raise(keys, priority)
        self.waiting.append(Queued(request, keys, priority, nbytes))
        self._priorities[priority] += 1
        self.nbytes += nbytes

    def _raise(self, related: frozenset[Key] | None, priority: int) -> None:
        """Raises the priority of requests that one with these keys would have to overtake."""
        for earlier in reversed(self.waiting):
            if related is None or earlier.keys is None or not related.isdisjoint(earlier.keys):
                if earlier.priority < priority:
                    self._forget(earlier.priority)
                    earlier.priority = priority
                    self._priorities[priority] += 1
                related = None if related is None or earlier.keys is None else related | earlier.keys

    def take(self) -> R:
        """Removes and returns the next request."""
        highest = max(self._priorities)
        at = next(k for k, waiting in enumerate(self.waiting) if waiting.priority == highest)  # the first of equals
        found = self.waiting.pop(at)
        self._forget(highest)
        self.nbytes -= found.nbytes
        return found.request

    def _forget(self, priority: int) -> None:
        self._priorities[priority] -= 1
        if not self._priorities[priority]:
            del self._priorities[priority]
