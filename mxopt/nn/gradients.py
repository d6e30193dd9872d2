"""What is done to gradients before a step. New arrays are made: nobody's gradient is changed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.sparse import RowSparse


def decayed(grad: Any, weight: Any, decay: float) -> Any:
    """`grad + decay * weight`; of a row-sparse gradient the rows it has."""
    if isinstance(grad, RowSparse):
        return RowSparse(decayed(grad.data, weight[grad.indices], decay), grad.indices, grad.shape)
    return grad + (decay * weight).astype(grad.dtype)


def centralized(grad: Any) -> Any:
    """`grad` less its mean over all axes but the first, https://arxiv.org/abs/2004.01461; vectors as they are."""
    if isinstance(grad, RowSparse):
        return RowSparse(centralized(grad.data), grad.indices, grad.shape)
    return grad - grad.mean(axis=tuple(range(1, grad.ndim)), keepdims=True) if grad.ndim > 1 else grad


def scaled(grad: Any, factor: float) -> Any:
    """`factor * grad`."""
    if isinstance(grad, RowSparse):
        return RowSparse(scaled(grad.data, factor), grad.indices, grad.shape)
    return grad * factor


def widened(grad: Any) -> Any:
    """`grad` in float32 where it has 16 bits."""
    if isinstance(grad, RowSparse):
        return RowSparse(widened(grad.data), grad.indices, grad.shape)
    return grad.astype(np.float32) if grad.dtype.itemsize == 2 else grad


def chunks(values: list[Any]) -> list[list[int]] | None:
    """The positions of arrays by dtype, if those of each dtype lie one right behind another in one allocation."""
    by_dtype: dict[Any, list[int]] = {}
    for k, value in enumerate(values):
        if not isinstance(value, np.ndarray) or not arrays.is_plain(value):
            return None
        by_dtype.setdefault(value.dtype, []).append(k)
    for positions in by_dtype.values():
        for before, after in pairwise(positions):
            a, b = values[before], values[after]
            if _owner(a) is not _owner(b) or a.ctypes.data + a.nbytes != b.ctypes.data:
                return None
    return list(by_dtype.values())


def joined(values: list[np.ndarray]) -> np.ndarray:
    """Arrays that lie one right behind another as one vector over the same memory."""
    first = values[0]
    return np.lib.stride_tricks.as_strided(first, (sum(v.size for v in values),), (first.itemsize,))


def _owner(array: Any) -> Any:
    """The object whose memory an array looks at."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array
