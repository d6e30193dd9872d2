"""What the workers of `test_bad_input.py` run; see `workers.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from workers import caught, make

from mxopt import kvstore


def different_shapes(arguments: Any) -> list[str]:
    """Workers that initialise a key with different shapes, then another one rightly."""
    store = kvstore.create("dist_sync")
    error = caught(store.init, "w", np.zeros(3 + store.rank, np.float32))
    out = np.zeros(2, np.float32)
    store.init("v", out)
    store.pushpull("v", np.ones(2, np.float32), out=out)
    return [f"{type(error).__name__}: {error}", str(out.tolist())]


def first_values(arguments: dict[str, Any]) -> list[str]:
    """`init` of a key of this shape, and then a round of another."""
    store = kvstore.create("dist_sync")
    error = caught(store.init, "w", np.zeros(arguments["shape"], np.float32))
    out = np.zeros(2, np.float32)
    store.init("v", out)
    store.pushpull("v", np.ones(2, np.float32), out=out)
    return [f"{type(error).__name__}: {error}", str(out.tolist())]


def fills_the_disk(arguments: dict[str, Any]) -> float:
    """A small key until there is a snapshot, then one that is larger than a file may be."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    small, large = np.zeros(2, np.float32), np.zeros(700_000, np.float32)
    store.init("small", small)
    while not Path(arguments["snapshot"]).exists():
        store.pushpull("small", np.zeros(2, np.float32), out=small)
    store.init("large", large)
    for _ in range(3):
        store.pushpull(["small", "large"], [np.ones_like(small), np.ones_like(large)], out=[small, large])
    assert (large == small[0]).all()
    return float(small[0])


def failing_update(arguments: Any) -> str:
    """A round whose update raises on the server."""
    import raising  # noqa: F401

    store = kvstore.create("dist_sync")
    store.set_optimizer(make("raises", {}))
    weight = np.ones(3, np.float32)
    store.init("w", weight)
    error = caught(store.pushpull, "w", np.ones(3, np.float32), weight)
    return f"{type(error).__name__}: {error}"
