"""A worker whose script holds the interpreter's lock; see `workers.py`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from workers import make

from mxopt import kvstore


def lock_held(arguments: dict[str, Any]) -> None:
    """Rank 0 calls a function that keeps the interpreter's lock, for longer than a silent process
    counts as alive."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    out = np.zeros(4, np.float32)
    store.init("w", out)
    for step in range(3):
        store.pushpull("w", np.ones(4, np.float32), out=out)
        if step == 1 and store.rank == 0:
            ctypes.PyDLL(None).usleep(int(arguments["seconds"] * 1e6))
    assert out.tolist() == [-6] * 4  # three rounds of two workers
