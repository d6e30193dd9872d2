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


def refused_calls(arguments: dict[str, Any]) -> list[Any]:
    """Calls that are refused before anything has changed, and a push in another byte order."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    one, read_only = np.ones(2, np.float32), np.ones(2, np.float32)
    read_only.flags.writeable = False
    store.init("w", one)
    wrong = [one[:1], read_only]
    errors = [caught(store.pushpull, "w", one, out) for out in wrong] + [caught(store.pull, "w", out) for out in wrong]
    before = store.round("w")
    out = np.zeros(2, ">f4")
    store.pushpull("w", one.astype(">f4"), out=out)
    return [*(f"{type(e).__name__}: {e}" for e in errors), before, store.round("w"), out.tolist()]


def checkpoints(arguments: dict[str, Any]) -> list[Any]:
    """A checkpoint that can't be written, which all workers hear; then one that can."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("adam", {}))
    store.init("w", np.ones(2, np.float32))
    store.push("w", np.ones(2, np.float32))
    error = caught(store.save_checkpoint, arguments["file"])
    store.save_checkpoint(arguments["folder"])
    return [type(error).__name__, str(error)]


def checkpoints_that_do_not_fit(arguments: dict[str, Any]) -> list[Any]:
    """A checkpoint that is refused, and leaves no key behind; then it is loaded."""
    store = kvstore.create("dist_sync")
    errors = [caught(store.load_checkpoint, arguments["folder"])]
    store.set_optimizer(make("sgd", {}))
    errors += [caught(store.load_checkpoint, arguments["folder"]), caught(store.round, "w")]
    store.set_optimizer(make("adam", {}))
    store.load_checkpoint(arguments["folder"])
    return [*(type(e).__name__ for e in errors), store.round("w")]
