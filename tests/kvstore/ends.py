"""How the workers of `test_ends.py` end; see `workers.py`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from workers import make

from mxopt import kvstore


def rounds(store: Any, steps: int) -> list[float]:
    out = np.zeros(4, np.float32)
    for _ in range(steps):
        store.pushpull("w", np.ones(4, np.float32), out=out)
    return out.tolist()


def started(store: Any) -> Any:
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    store.init("w", np.zeros(4, np.float32))
    return store


def after_an_error(arguments: Any) -> list[float]:
    """An error is shown, and the session goes on, as in a notebook."""
    store = started(kvstore.create("dist_sync"))
    try:
        raise ValueError("shown to a person")
    except ValueError as error:
        sys.last_value = error
    return rounds(store, 2)


def one_raises(arguments: Any) -> list[float]:
    """Worker 0 raises; the other, which catches what it hears of it, ends after a push that nobody takes."""
    store = started(kvstore.create("dist_sync"))
    rounds(store, 1)
    if store.rank == 0:
        raise RuntimeError("this worker raises")
    try:
        return rounds(store, 1)
    except Exception as error:
        print("CAUGHT", error, flush=True)
        return []
