"""All optimizers of `experimental.optim`, with options that matter, and what the tests do with
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mxopt.experimental import optim

TABLE: dict[str, Callable[..., optim.Optimizer]] = {
    "Adadelta": lambda p, **k: optim.Adadelta(p, 0.5, weight_decay=0.1, **k),
    "Adagrad": lambda p, **k: optim.Adagrad(p, 0.1, 0.1, 0.1, 0.5, **k),
    "Adagrad plain": lambda p, **k: optim.Adagrad(p, 0.1, **k),
    "Adam": lambda p, **k: optim.Adam(p, 0.1, weight_decay=0.1, **k),
    "Adam amsgrad": lambda p, **k: optim.Adam(p, 0.1, weight_decay=0.1, amsgrad=True, **k),
    "AdamW": lambda p, **k: optim.AdamW(p, 0.1, weight_decay=0.1, **k),
    "AdamW amsgrad": lambda p, **k: optim.AdamW(p, 0.1, weight_decay=0.1, amsgrad=True, **k),
    "Adamax": lambda p, **k: optim.Adamax(p, 0.1, weight_decay=0.1, **k),
    "ASGD": lambda p, **k: optim.ASGD(p, 0.1, 0.1, t0=2.0, weight_decay=0.1, **k),
    "NAdam": lambda p, **k: optim.NAdam(p, 0.1, weight_decay=0.1, **k),
    "RAdam": lambda p, **k: optim.RAdam(p, 0.1, weight_decay=0.1, **k),
    "RMSprop": lambda p, **k: optim.RMSprop(p, 0.05, weight_decay=0.1, **k),
    "RMSprop momentum": lambda p, **k: optim.RMSprop(p, 0.05, momentum=0.9, **k),
    "RMSprop centered": lambda p, **k: optim.RMSprop(p, 0.05, centered=True, **k),
    "RMSprop both": lambda p, **k: optim.RMSprop(p, 0.05, momentum=0.9, centered=True, **k),
    "Rprop": lambda p, **k: optim.Rprop(p, 0.1, **k),
    "SGD plain": lambda p, **k: optim.SGD(p, 0.1, **k),
    "SGD": lambda p, **k: optim.SGD(p, 0.1, weight_decay=0.1, **k),
    "SGD momentum": lambda p, **k: optim.SGD(p, 0.1, 0.9, 0.1, weight_decay=0.1, **k),
    "SGD nesterov": lambda p, **k: optim.SGD(p, 0.1, 0.9, nesterov=True, **k),
}
SHAPES = [(5,), (3, 4), (), (2, 1, 3), (0, 2), (40,)]
STEPS = 8

every = pytest.mark.parametrize("make", TABLE.values(), ids=TABLE)


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
