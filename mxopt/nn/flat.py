"""Arrays that are adjacent in memory, as one vector for each dtype."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.typing import Array


def chunks(values: list[Array]) -> list[list[int]] | None:
    """The positions of arrays by dtype; None unless those of each dtype are adjacent, in order, in
    one allocation."""
    by_dtype: dict[Hashable, list[int]] = {}
    for k, value in enumerate(values):
        if not isinstance(value, np.ndarray) or not arrays.is_plain(value):
            return None
        by_dtype.setdefault(value.dtype, []).append(k)
    for positions in by_dtype.values():
        for before, after in pairwise(values[k] for k in positions):
            if _owner(before) is not _owner(after) or before.ctypes.data + before.nbytes != after.ctypes.data:
                return None
    return list(by_dtype.values())


def joined(values: list[np.ndarray]) -> np.ndarray:
    """The arrays of one chunk as a vector over their memory."""
    first = values[0]
    return np.lib.stride_tricks.as_strided(first, (sum(v.size for v in values),), (first.itemsize,))


def flattened(gradients: list[Array], values: list[Array], positions: list[list[int]]) -> list[np.ndarray]:
    """The gradients of `values`, whose chunks are at `positions`, as one vector for each chunk.

    The vector lies over the gradients' memory if they are adjacent too, else in new memory.
    """
    for k, (gradient, value) in enumerate(zip(gradients, values, strict=True)):
        if not isinstance(gradient, np.ndarray):
            raise ArrayTypeError(
                f"flatten_gradients: gradient {k} must be a dense array, got {type(gradient).__name__}"
            )
        if gradient.shape != value.shape:
            raise ArrayError(f"flatten_gradients: gradient {k} has shape {gradient.shape}, its parameter {value.shape}")
    parts = [[gradients[k] for k in chunk] for chunk in positions]
    return [
        joined(part) if chunks(part) == [[*range(len(part))]] else np.concatenate([x.ravel() for x in part])
        for part in parts
    ]


def _owner(array: Array) -> Array:
    """The object that owns an array's memory."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array
