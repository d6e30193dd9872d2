"""What a server holds: entries (its part of each key's value), cut into parts (the pieces that travel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.kvstore import wire
from mxopt.kvstore.wire import Key
from mxopt.sparse import RowSparse


class PartIndex:
    """The optimizer's index of one of several parts of a key."""

    __slots__ = ("key", "piece")

    def __init__(self, key: Key, piece: int) -> None:
        self.key, self.piece = key, piece

    def __repr__(self) -> str:
        return f"{self.key!r}, piece {self.piece}"


class Part:
    """A piece of an entry: the unit of rounds and of updates. `weight` is a view of the entry's, `frame` its bytes."""

    __slots__ = ("entry", "frame", "group", "index", "nbytes", "piece", "shape", "size", "start", "stop", "weight")

    def __init__(self, entry: Entry, piece: int, start: int, stop: int) -> None:
        self.entry, self.piece, self.start, self.stop = entry, piece, start, stop
        self.weight = entry.weight if entry.pieces == 1 else entry.weight[start:stop]
        self.frame = wire.bytes_of(self.weight)
        self.shape, self.size, self.nbytes = self.weight.shape, self.weight.size, self.weight.nbytes
        self.index: Any = entry.key if entry.pieces == 1 else PartIndex(entry.key, piece)
        self.group: Any = None  # the Group of parts that are pushed together; set by the table


class Entry:
    """This server's part of a key's value.

    Parameters
    ----------
    key : int or str
    dtype : str
    shape : (units, elements of a unit...)
    whole : the shape of the whole array
    first : where the part begins in the whole array, in units
    step : units of a piece
    """

    def __init__(self, key: Key, dtype: str, shape: Sequence[int], whole: Sequence[int], first: int, step: int) -> None:
        self.key, self.dtype, self.whole, self.first, self.step = key, dtype, tuple(whole), first, step
        self.units = shape[0]
        self.pieces = max(1, -(-self.units // step))
        real = next(d for d, name in arrays.DTYPES.items() if name == dtype)
        stored = tuple(shape)
        if self.pieces == 1 and np.prod(stored, dtype=object) == np.prod(self.whole, dtype=object):
            stored = self.whole  # all of it is here, in one piece: the optimizer sees it as the worker does
        self.weight = np.zeros(stored, real)
        self.parts = [Part(self, p, p * step, min(self.units, (p + 1) * step)) for p in range(self.pieces)]
        self.missing = set(range(self.pieces))  # pieces whose first value has not come
        self.gradients: dict[int, np.ndarray] = {}  # of rules that need all pieces: the sums so far, by worker
        self.arrived: dict[int, int] = {}
        self.assembling: list[Any] = []  # requests that wait for the pieces

    def same(self, dtype: str, shape: Sequence[int], whole: Sequence[int], first: int, step: int) -> bool:
        """Whether an Init asks for what is here already."""
        described = (self.dtype, self.units, self.whole, self.first, self.step)
        return described == (dtype, shape[0], tuple(whole), first, step)

    def rows(self) -> np.ndarray:
        """The weight as (units, elements of a unit)."""
        return self.weight.reshape(self.units, -1) if self.units else self.weight.reshape(0, 1)


def cut(state: Any, start: int, stop: int, units: int) -> Any:
    """The part `start` to `stop` of an optimizer's state: views of its arrays."""
    if isinstance(state, tuple | list):
        return type(state)(cut(part, start, stop, units) for part in state)
    if isinstance(state, np.ndarray) and state.ndim and state.shape[0] == units:
        return state[start:stop]
    return state


def total(values: Sequence[Any], parts: Sequence[Part]) -> Any:
    """The sum of the workers' gradients in their order; float32 for 16-bit types where there are several."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(v, RowSparse) for v in values):
        return _sparse_total(values)
    dense = [v.todense().reshape(-1) if isinstance(v, RowSparse) else v for v in values]
    if dense[0].dtype.itemsize == 2:
        result = dense[0].astype(np.float32)
        for value in dense[1:]:
            result += value.astype(np.float32)
        return result
    result = np.add(dense[0], dense[1])
    for value in dense[2:]:
        result += value
    return result


def _sparse_total(values: Sequence[RowSparse]) -> RowSparse:
    """The same for row-sparse gradients: a row is the sum of those of its number, in the workers' order."""
    indices = np.unique(np.concatenate([v.indices for v in values]))
    dtype = np.dtype(np.float32) if values[0].dtype.itemsize == 2 else values[0].dtype
    data = np.zeros((len(indices), *values[0].data.shape[1:]), dtype)
    seen = np.zeros(len(indices), bool)
    for value in values:
        at = np.searchsorted(indices, value.indices)
        fresh = ~seen[at]
        rows = value.data.astype(dtype, copy=False)
        data[at[fresh]] = rows[fresh]
        data[at[~fresh]] += rows[~fresh]
        seen[at] = True
    return RowSparse(data, indices, values[0].shape)
