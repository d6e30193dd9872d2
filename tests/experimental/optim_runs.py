"""What the tests do with the optimizers of `experimental.optim`, all of them in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from table import EXPERIMENTAL

SHAPES = [(5,), (3, 4), (), (2, 1, 3), (0, 2), (40,)]
STEPS = 8

every = pytest.mark.parametrize("make", [row.over for row in EXPERIMENTAL], ids=map(str, EXPERIMENTAL))


def normal(seed: int, shapes: list[tuple[int, ...]] = SHAPES, dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def grads_of(step: int, dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
    return tuple(normal(100 + step, dtype=dtype))


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in arrays]


def arrays_in(document: Any) -> Any:
    """A document with its arrays as bytes, so that == compares it to the last bit."""
    if isinstance(document, dict):
        return {key: arrays_in(value) for key, value in document.items()}
    return (document.dtype.name, document.tobytes()) if isinstance(document, np.ndarray) else document
