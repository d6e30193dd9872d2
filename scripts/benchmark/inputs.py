"""A case's arrays, in NumPy: the same numbers for every system."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from benchmark.cases import Case, Shape

SEED = 7
SPREAD_ROWS = 100_000  # sparse gradients together have as many rows, so that the caches don't hold them


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(1 << 20).astype(np.float32)


def noise(shape: Shape, dtype: np.dtype | type, scale: float) -> np.ndarray:
    block, size = _noise(), math.prod(shape)
    array = np.empty(size, dtype)
    for first in range(0, size, len(block)):
        part = array[first : first + len(block)]
        part[...] = block[: len(part)] * np.float32(scale)
    return array.reshape(shape)


@lru_cache(maxsize=1)
def _lasting(shapes: tuple[Shape, ...], dtype: np.dtype) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [np.empty(s, dtype) for s in shapes], [noise(s, dtype, 0.1) for s in shapes]


def dtype_of(case: Case) -> np.dtype:
    if case.dtype == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(case.dtype)


def dense(case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and gradients; the same arrays as for the case before, where they are alike."""
    if case.row_count:
        return [noise(case.shapes[0], np.float32, 1)], []
    weights, grads = _lasting(case.shapes, dtype_of(case))
    for weight in weights:
        weight[...] = noise(weight.shape, weight.dtype, 1)
    return weights, grads


def sparse(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gradients of some rows, as (data, indices); they come in turn."""
    rng = np.random.default_rng(SEED)
    height, width = case.shapes[0]
    count = max(2, min(100, SPREAD_ROWS // case.row_count))
    indices = [np.sort(rng.choice(height, case.row_count, replace=False)) for _ in range(count)]
    return [(noise((case.row_count, width), np.float32, 0.1), i) for i in indices]
