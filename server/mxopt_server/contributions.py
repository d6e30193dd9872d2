"""What workers contribute to rounds: the sum of a round, and why contributions to it may not fit
together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mxopt.errors import KVStoreError
from mxopt.kvstore.wire import Key
from mxopt.sparse import RowSparse
from mxopt.sparse.summed import Summed
from mxopt.sparse.sums import merged
from mxopt.typing import Array
from mxopt_server.told import Told, difference as told_difference

ALL = -1  # as a worker: all of them together


@dataclass(slots=True)
class Contribution:
    """What one worker pushed for a round: `value` is an array, flat over the parts, or PushedRows
    of a whole entry."""

    rank: int
    number: int
    value: Array
    optimizer: Told | None  # that it counts on; None if it never set one
    update: int
    step: int = 0  # of the worker's training, 0 where it counts none


def difference(heads: Sequence[Contribution]) -> Exception | None:
    """Why several workers' pushes for one round can't make an update; None if they can."""
    first = next((c for c in heads if c.step), None)
    for c in heads:
        if first is not None and c.step and c.step != first.step:
            return KVStoreError(
                f"worker {first.rank} pushed for round {c.number} in step {first.step}, worker {c.rank} in step"
                f" {c.step}: one of them has left out a push"
            )
    told = [(c.rank, c.optimizer) for c in heads if c.optimizer is not None]
    for rank, optimizer in told[1:]:
        differs = told_difference(*told[0], rank, optimizer)
        if differs:
            return KVStoreError(f"{differs}: in a round of all workers both have to be the same")
    return None


def missing(key: Key, rank: int, number: int, last: int) -> KVStoreError:
    """The error for a push whose round is too far ahead."""
    return KVStoreError(
        f"key {key!r}: worker {rank} pushes for round {number}, and its last push here was for round {last}: what it"
        " has pushed in between is missing"
    )


class PushedRows:
    """A row-sparse gradient as it has come: the rows `indices` of an array of `shape`, in several
    `arrays` of rows, one after the other."""

    def __init__(self, arrays: Sequence[np.ndarray], indices: np.ndarray, shape: tuple[int, ...]) -> None:
        self.arrays, self.indices, self.shape = arrays, indices, shape

    @property
    def dtype(self) -> np.dtype:
        return self.arrays[0].dtype

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def joined(self) -> RowSparse:
        """All of it, which is copied, once, where it came in several."""
        if len(self.arrays) > 1:
            self.arrays = [np.concatenate(self.arrays)]
        return RowSparse(self.arrays[0], self.indices, self.shape)

    def parts(self, places: np.ndarray, dtype: np.dtype) -> list[tuple[np.ndarray, np.ndarray]]:
        """The arrays in this dtype, each with those of these places that are its rows'."""
        bounds = np.cumsum([0, *map(len, self.arrays)])
        spans = zip(self.arrays, bounds[:-1], bounds[1:], strict=True)
        return [(rows.astype(dtype, copy=False), places[first:last]) for rows, first, last in spans]


def total(values: Sequence[Array | PushedRows]) -> Array:
    """The sum of workers' gradients, arrays or PushedRows, in their order; float32 for 16-bit
    types, where there are several."""
    if len(values) == 1 and not isinstance(values[0], PushedRows):
        return values[0]
    if all(isinstance(v, PushedRows) for v in values):
        return _sparse_total(values)
    dense = [v.joined().todense().reshape(-1) if isinstance(v, PushedRows) else v for v in values]
    if dense[0].dtype.itemsize == 2:
        result = dense[0].astype(np.float32)
        for value in dense[1:]:
            result += value.astype(np.float32)
        return result
    result = np.add(dense[0], dense[1])
    for value in dense[2:]:
        result += value
    return result


def _sparse_total(values: Sequence[PushedRows]) -> RowSparse:
    """The same for row-sparse gradients: a row is the sum of those of its number, in the workers'
    order."""
    indices, places = merged([v.indices for v in values])
    several = len(values) > 1
    dtype = np.dtype(np.float32) if several and values[0].dtype.itemsize == 2 else values[0].dtype
    parts = [part for value, mine in zip(values, places, strict=True) for part in value.parts(mine, dtype)]
    return Summed(parts, indices, values[0].shape)
