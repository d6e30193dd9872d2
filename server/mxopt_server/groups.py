"""Parts that workers push together in one message: one piece of a large array, all pieces of an
array whose rows are pushed, or many small keys.

As long as everyone groups the same keys, a whole message is one contribution. A message that groups
them otherwise dissolves the group into single parts, with everything that is pending in it, so that
the outcome is that of single pushes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mxopt.sparse import RowSparse
from mxopt_server.contributions import Contribution, Request
from mxopt_server.rounds import Rounds

if TYPE_CHECKING:
    from mxopt_server.values import Part

# (key, key...), ((key, piece),), or (None, key) for all pieces of a key.
GroupKey = tuple[Any, ...]


class Group:
    """Parts that are pushed together, with their rounds and those who wait to see them."""

    __slots__ = (
        "dtype", "entry", "flats", "indices", "keys", "parts", "rounds", "size", "slices", "waiting", "weights",
    )  # fmt: skip

    def __init__(self, parts: Sequence[Part], keys: GroupKey, rounds: Rounds) -> None:
        self.parts, self.keys, self.rounds = list(parts), keys, rounds
        self.entry = self.parts[0].entry  # of the first
        self.waiting: list[Request] = []
        offset, self.slices = 0, []
        for part in self.parts:
            self.slices.append(slice(offset, offset + part.size))
            offset += part.size
            part.group = self
        self.size, self.dtype = offset, self.parts[0].weight.dtype
        self.indices = [part.index for part in self.parts]
        self.weights = [part.weight for part in self.parts]
        self.flats = [part.weight.reshape(-1) for part in self.parts if not part.entry.by_rows]

    def split(self, value: np.ndarray) -> list[np.ndarray]:
        """A flat array over the parts as one of each part's shape."""
        return [
            value[s] if w.ndim == 1 else value[s].reshape(w.shape)
            for s, w in zip(self.slices, self.weights, strict=True)
        ]

    def settled(self, rank: int, number: int) -> bool:
        """Whether a worker may see the values of its round now, or hear that it has failed."""
        entry = self.entry
        return self.rounds.may_see(rank, number) and not (entry.sums and entry.holds_back(rank))

    @property
    def pending(self) -> bool:
        """Whether somebody waits, or has pushed for an open round."""
        return bool(self.waiting or self.rounds.open)

    def settle(self) -> None:
        """Answers those who need wait no longer."""
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            if self.settled(request.rank, request.number):
                request.met(self.rounds.error(request.rank, request.number))
            else:
                self.waiting.append(request)

    def singles(self) -> list[Group]:
        """Groups of one part each, with what is pending in this one."""
        for request in self.waiting:
            request.missing += len(self.parts) - 1
        made = []
        for k, part in enumerate(self.parts):
            rounds = self.rounds.part(lambda c, k=k, part=part: cut(c, self.slices[k], part, k == 0))  # type: ignore[misc]
            made.append(Group([part], ((part.entry.key, part.piece),), rounds))
            made[-1].waiting = list(self.waiting)
        return made


def cut(contribution: Contribution, span: slice, part: Part, first: bool) -> Contribution:
    """What of a contribution to several parts is for one of them, where it has the elements
    `span`."""
    c, value = contribution, contribution.value
    if isinstance(value, RowSparse):
        a, b = np.searchsorted(value.indices, (part.start, part.stop))
        value = RowSparse(value.data[a:b], value.indices[a:b] - part.start, part.shape)
    else:
        value = value[span]
    return Contribution(c.rank, c.number, value, c.optimizer, c.update, c.step)
