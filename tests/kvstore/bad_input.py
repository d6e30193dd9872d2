"""What the workers of `test_bad_input.py` run; see `workers.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from workers import make, refused

from mxopt import kvstore
from mxopt.errors import ArrayError, KVStoreError, NotInitializedError, StatesError, UsageError


def different_shapes(arguments: Any) -> None:
    """Workers that initialise a key with different shapes, then another one rightly."""
    store = kvstore.create("dist_sync")
    if store.rank == 0:
        store.init("w", np.zeros(3, np.float32))
    else:
        words = "key 'w': rank 0 initialised float32 of shape [3], rank 1 float32 of shape [4]"
        refused(ArrayError, words, store.init, "w", np.zeros(4, np.float32))
    out = np.zeros(2, np.float32)
    store.init("v", out)
    store.pushpull("v", np.ones(2, np.float32), out=out)
    assert out.tolist() == [2, 2]


def first_values(arguments: dict[str, Any]) -> None:
    """`init` of a key of this shape, which is `refused` or not, and then a round of another."""
    store, value = kvstore.create("dist_sync"), np.zeros(arguments["shape"], np.float32)
    if "refused" in arguments:
        refused(KVStoreError, arguments["refused"], store.init, "w", value)
    else:
        store.init("w", value)
    out = np.zeros(2, np.float32)
    store.init("v", out)
    store.pushpull("v", np.ones(2, np.float32), out=out)
    assert out.tolist() == [1, 1]


def fills_the_disk(arguments: dict[str, Any]) -> None:
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
    assert set(large.tolist()) == set(small.tolist()) == {-3}


def failing_update(arguments: Any) -> None:
    """A round whose update raises on the server."""
    import raising  # noqa: F401

    store = kvstore.create("dist_sync")
    store.set_optimizer(make("raises", {}))
    weight = np.ones(3, np.float32)
    store.init("w", weight)
    words = "server 0: ValueError: this update fails"
    refused(KVStoreError, words, store.pushpull, "w", np.ones(3, np.float32), weight)


def refused_calls(arguments: Any) -> None:
    """Calls that are refused before anything has changed, and a push in another byte order."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    one, read_only = np.ones(2, np.float32), np.ones(2, np.float32)
    read_only.flags.writeable = False
    store.init("w", one)
    for words, wrong in (("the store holds shape (2,), out has (1,)", one[:1]), ("out is read-only", read_only)):
        refused(ArrayError, f"key 'w': {words}", store.pushpull, "w", one, wrong)
        refused(ArrayError, f"key 'w': {words}", store.pull, "w", wrong)
    assert store.round("w") == 0
    out = np.zeros(2, ">f4")
    store.pushpull("w", one.astype(">f4"), out=out)
    assert (store.round("w"), out.tolist()) == (1, [0, 0])


def checkpoints(arguments: dict[str, Any]) -> None:
    """A checkpoint that can't be written, which all workers hear; then one that can."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("adam", {}))
    store.init("w", np.ones(2, np.float32))
    store.push("w", np.ones(2, np.float32))
    if store.rank == 0:
        refused(FileExistsError, "", store.save_checkpoint, arguments["file"])
    else:
        words = "save_checkpoint: worker 0 couldn't write it: FileExistsError"
        refused(KVStoreError, words, store.save_checkpoint, arguments["file"])
    store.save_checkpoint(arguments["folder"])


def checkpoints_that_do_not_fit(arguments: dict[str, Any]) -> None:
    """A checkpoint that is refused, and leaves no key behind; then it is loaded."""
    store = kvstore.create("dist_sync")
    refused(UsageError, "", store.load_checkpoint, arguments["folder"])
    store.set_optimizer(make("sgd", {}))
    refused(StatesError, "", store.load_checkpoint, arguments["folder"])
    refused(NotInitializedError, "", store.round, "w")
    store.set_optimizer(make("adam", {}))
    store.load_checkpoint(arguments["folder"])
    assert store.round("w") == 1
