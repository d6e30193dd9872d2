"""What the workers of simulated jobs do: small trainings through the real store. Each returns its
weights' bytes.

A worker's gradients depend on its rank and the step alone, so that every run of a program ends with
the same weights, also one that goes on with a job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import mxopt
from mxopt.sparse import row_sparse_array

BOUND = 64  # elements from which arrays are striped
SHAPES = {"small": (5,), "matrix": (3, 4), "striped": (300,), "rows": (40, 4), "large": (20_000,)}
KEYS = list(SHAPES)

Pause = Callable[[], None]


def start(store: Any, shapes: dict[str, tuple[int, ...]], **options: Any) -> tuple[mxopt.Optimizer, list[np.ndarray]]:
    """The optimizer and the first weights, which all workers have then."""
    optimizer = mxopt.create("sgd", **{"learning_rate": 0.1, "momentum": 0.9, **options})
    store.set_optimizer(optimizer)
    weights = [np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes.values()]
    store.broadcast(list(shapes), weights, weights)
    return optimizer, weights


def gradients(shapes: dict[str, tuple[int, ...]], rank: int, step: int) -> list[np.ndarray]:
    rng = np.random.default_rng([rank, step])
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes.values()]


def result(weights: list[np.ndarray]) -> bytes:
    return b"".join(weight.tobytes() for weight in weights)


def pushpull(store: Any, pause: Pause) -> bytes:
    """Rounds of all keys in one call, with a rate that changes."""
    optimizer, weights = start(store, SHAPES)
    for step in range(store.round("small"), 6):
        pause()
        optimizer.set_learning_rate(0.05 if step >= 3 else 0.1)
        store.pushpull(KEYS, gradients(SHAPES, store.rank, step), out=weights)
    store.barrier()
    return result(weights)


def by_key(store: Any, pause: Pause) -> bytes:
    """The way of MXNet's scripts: each key pushed and pulled by itself, by priority."""
    _, weights = start(store, SHAPES)
    for step in range(store.round("small"), 4):
        pause()
        for k, grad in enumerate(gradients(SHAPES, store.rank, step)):
            store.push(KEYS[k], grad, priority=-k)
        for k, weight in enumerate(weights):
            store.pull(KEYS[k], weight, priority=-k)
    store.barrier()
    return result(weights)


def pushes_only(store: Any, pause: Pause) -> bytes:
    """Many pushes of small keys, and one look at the end."""
    shapes = {"small": (5,), "matrix": (3, 4)}
    _, weights = start(store, shapes)
    for step in range(store.round("small"), 30):
        if step % 10 == 0:
            pause()
        store.push(list(shapes), gradients(shapes, store.rank, step))
    store.pull(list(shapes), weights)
    store.barrier()
    return result(weights)


def sparse(store: Any, pause: Pause) -> bytes:
    """Row-sparse gradients, and pulls of some rows."""
    shapes = {"rows": (40, 4), "small": (5,)}
    _, weights = start(store, shapes)
    for step in range(store.round("small"), 4):
        pause()
        grads = gradients(shapes, store.rank, step)
        ids = np.arange((store.rank + step) % 3, 40, 3)
        store.push("rows", row_sparse_array((grads[0][ids], ids), shape=(40, 4)))
        store.pushpull("small", grads[1], out=weights[1])
        out = row_sparse_array((np.zeros((0, 4), np.float32), np.zeros(0, np.int64)), shape=(40, 4))
        store.row_sparse_pull("rows", out=out, row_ids=ids)
        weights[0][out.indices] = out.data
    store.barrier()
    store.pull("rows", weights[0])
    return result(weights)


def adding(store: Any, pause: Pause) -> bytes:
    """Every push takes off whole numbers, so that the order doesn't matter: what is applied twice
    or never shows."""
    keys = ["small", "striped"]
    weights = [np.zeros(5, np.float32), np.zeros(300, np.float32)]
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    store.init(keys, weights)
    for step in range(store.round("small"), 10):
        pause()
        store.push(keys, [np.full_like(weight, 2.0 ** (step % 4)) for weight in weights])
    store.pull(keys, weights)
    store.barrier()
    store.pull(keys, weights)
    return result(weights)


def steady(store: Any, pause: Pause) -> bytes:
    """Many steps of small keys, which each worker pushes in its own order; one of them every other
    step, so the steps are counted."""
    shapes = {"small": (5,), "matrix": (3, 4), "rare": (7,)}
    _, weights = start(store, shapes)
    for step in range(store.round("small"), 24):
        pause()
        store.step = step + 1
        order = [0, 1, 2] if store.rank % 2 else [2, 1, 0]
        grads = gradients(shapes, store.rank, step)
        for k in order if step % 2 else [k for k in order if k < 2]:
            store.push(list(shapes)[k], grads[k])
        store.pull(list(shapes), weights)
    store.step = 0
    store.barrier()
    return result(weights)


PROGRAMS = {
    "pushpull": pushpull, "by_key": by_key, "pushes_only": pushes_only, "sparse": sparse, "adding": adding,
    "steady": steady,
}  # fmt: skip
MODES = {"adding": ["async", "ssp", "sync"]}  # of the others: sync
