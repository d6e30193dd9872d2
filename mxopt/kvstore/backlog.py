"""Requests that wait for room on a connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Waiting:
    """A request in a backlog; `keys` are what it speaks of, None is everything."""

    request: Any
    keys: frozenset[Any] | None
    priority: int
    nbytes: int


class Backlog:
    """Requests in the order in which they are to be sent: the highest priority first, equal ones as they came.

    A request never overtakes another of the same key; what it would have to overtake is raised to its priority.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._waiting: list[Waiting] = []  # as they came

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Any]:
        return (waiting.request for waiting in self._waiting)

    def put(self, request: Any, keys: frozenset[Any] | None, priority: int, nbytes: int) -> None:
        """Adds a request. Without `keys` it speaks of everything: it overtakes none, and none overtakes it."""
        related = keys
        for earlier in reversed(self._waiting):
            if related is None or earlier.keys is None or not related.isdisjoint(earlier.keys):
                earlier.priority = max(earlier.priority, priority)
                related = None if related is None or earlier.keys is None else related | earlier.keys
        self._waiting.append(Waiting(request, keys, priority, nbytes))
        self.nbytes += nbytes

    def take(self) -> Any:
        """Removes the request that is next, and returns it."""
        found = max(self._waiting, key=lambda waiting: waiting.priority)  # the first of equals
        self._waiting.remove(found)
        self.nbytes -= found.nbytes
        return found.request
