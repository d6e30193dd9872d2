"""What workers contribute to rounds: the sum of a round, and why contributions to it may not fit
together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mxopt.errors import KVStoreError
from mxopt.kvstore.wire import Key
from mxopt.sparse import RowSparse
from mxopt.sparse.sums import added, merged
from mxopt.typing import Array
from mxopt_server.told import Told, difference as told_difference

ALL = -1  # as a worker: all of them together


@dataclass(slots=True)
class Contribution:
    """What one worker pushed for a round: `value` is flat over the parts, or row-sparse over a
    whole entry."""

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


def total(values: Sequence[Array]) -> Array:
    """The sum of several workers' gradients in their order; float32 for 16-bit types."""
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
    """The same for row-sparse gradients: a row is the sum of those of its number, in the workers'
    order."""
    indices, places = merged([v.indices for v in values])
    dtype = np.dtype(np.float32) if values[0].dtype.itemsize == 2 else values[0].dtype
    rows = [v.data.astype(dtype, copy=False) for v in values]
    return RowSparse(added(list(zip(rows, places, strict=True)), len(indices)), indices, values[0].shape)
