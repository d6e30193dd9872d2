"""The sum of what several workers pushed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mxopt.sparse import RowSparse
from mxopt.sparse.sums import added, merged
from mxopt.typing import Array


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
