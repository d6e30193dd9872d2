"""What a server holds of a key's value: an entry (its part of it), cut into parts (the pieces that
travel), which workers push in groups.

A group is what a message brings together: one piece of a large array, all pieces of an array whose
rows are pushed, or many small keys. As long as everyone groups the same keys, a whole message is
one contribution. A message that groups them otherwise dissolves the group into single parts, with
everything that is pending in it, so that the outcome is that of single pushes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.kvstore import wire
from mxopt.kvstore.placement import step_of
from mxopt.kvstore.wire import Key
from mxopt.typing import Array
from mxopt_server.contributions import ALL, Contribution, PushedRows
from mxopt_server.rounds import Rounds

# (key, key...), ((key, piece),), or (None, key) for all pieces of a key.
GroupKey = tuple[Any, ...]


class PartIndex:
    """The optimizer's index of one of several parts of a key."""

    __slots__ = ("key", "piece")

    def __init__(self, key: Key, piece: int) -> None:
        self.key, self.piece = key, piece

    def __repr__(self) -> str:
        return f"{self.key!r}, piece {self.piece}"


class Part:
    """A piece of an entry: the unit of rounds and of updates. `weight` is a view of the entry's,
    `frame` its bytes."""

    __slots__ = ("entry", "frame", "group", "index", "piece", "shape", "size", "start", "stop", "weight")

    def __init__(self, entry: Entry, piece: int) -> None:
        self.entry, self.piece = entry, piece
        self.start, self.stop = piece * entry.step, min(entry.units, (piece + 1) * entry.step)
        self.weight = entry.weight if entry.pieces == 1 else entry.weight[self.start : self.stop]
        self.frame = b"" if entry.by_rows else wire.bytes_of(self.weight)
        self.shape, self.size = self.weight.shape, math.prod(self.weight.shape)
        self.index: Any = entry.key if entry.pieces == 1 else PartIndex(entry.key, piece)
        self.group: Group | None = None


class Entry:
    """This server's part of a key's value. Its parts are made as their first values come, one after
    the other.

    Parameters
    ----------
    key : int or str
    dtype : str
    shape : (units, elements of a unit...)
    whole : the shape of the whole array
    first : where the part begins in the whole array, in units
    round : that the key begins with
    """

    by_rows = False  # whether it is row-sparse
    weight: Array

    def __init__(
        self, key: Key, dtype: str, shape: Sequence[int], whole: Sequence[int], first: int, round: int
    ) -> None:
        self.key, self.dtype, self.shape, self.whole, self.first = key, dtype, tuple(shape), tuple(whole), first
        self.round, self.real = round, wire.DTYPES[dtype]
        self.units, self.step = shape[0], step_of(math.prod(shape[1:]) * self.real.itemsize)
        self.pieces = max(1, -(-self.units // self.step))
        self.is_all = math.prod(shape) == math.prod(whole)  # of the array
        self.parts: list[Part] = []
        self.sums: dict[int, np.ndarray] = {}  # for rules that need all pieces, those so far: by worker, or of ALL
        self.arrived: dict[int, int] = {}  # how many pieces each of them has

    @property
    def complete(self) -> bool:
        """Whether all of the first value has come."""
        return len(self.parts) == self.pieces

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return int(self.weight.nbytes) if self.parts else 0

    def size_of(self, piece: int) -> int:
        """The elements of a piece."""
        return (min(self.units, (piece + 1) * self.step) - piece * self.step) * math.prod(self.shape[1:])

    def add(self, value: np.ndarray) -> None:
        """Takes the first value of the next part, flat."""
        if not self.parts:
            self._allocate()
        part = Part(self, len(self.parts))
        part.weight[...] = value.reshape(part.shape)
        self.parts.append(part)

    def restore(self, weight: np.ndarray, have: int) -> None:
        """Takes saved values, of the first `have` parts."""
        self._allocate()
        self.weight[...] = weight
        self.parts = [Part(self, piece) for piece in range(have)]

    def _allocate(self) -> None:
        """Makes the array; what of it hasn't come takes no memory."""
        # All of it in one piece: the optimizer sees it as the worker does.
        self.weight = np.zeros(self.whole if self.is_all and self.pieces == 1 else self.shape, self.real)

    def holds_back(self, rank: int) -> bool:
        """Whether a worker's pushes wait for other pieces."""
        return ALL in self.sums or rank in self.sums

    def rows(self) -> np.ndarray:
        """The weight as (units, elements of a unit)."""
        rows: np.ndarray = self.weight.reshape(self.units, -1) if self.units else self.weight.reshape(0, 1)
        return rows


class Request:
    """A worker's request that waits for round `number` of `parts`; it is over once nothing is
    `missing`."""

    __slots__ = (
        "answer", "error", "free", "missing", "nbytes", "number", "over", "parts", "pushes", "rank", "seq", "since",
    )  # fmt: skip

    def __init__(
        self,
        rank: int,
        seq: int,
        parts: Sequence[Part],
        number: int,
        nbytes: int,
        answer: Callable[[Any, int, Sequence[Part]], None],
        over: Callable[[Request], None],
        pushes: bool,
        free: bool,
        since: float,
    ) -> None:
        self.rank, self.seq, self.missing = rank, seq, 1
        self.answer, self.over = answer, over  # by what it is answered; what is called when it can be
        self.parts, self.number = parts, number
        self.nbytes = nbytes  # of what it keeps in memory, or of its answer
        self.pushes = pushes  # whether it is refused where the round has ended with an error
        self.free = free  # whether its worker needn't wait for it: Done is an answer, too
        self.since = since  # when it began to wait
        self.error: Exception | None = None

    def met(self, error: Exception | None = None) -> None:
        """One of the things it waits for has come, or has failed."""
        self.missing -= 1
        if self.pushes:
            self.error = self.error or error
        if self.missing == 0:
            self.over(self)


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
    if isinstance(value, PushedRows):
        a, b = np.searchsorted(value.indices, (part.start, part.stop))
        value = PushedRows([value.joined().data[a:b]], value.indices[a:b] - part.start, part.shape)
    else:
        value = value[span]
    return Contribution(c.rank, c.number, value, c.optimizer, c.update, c.step)
