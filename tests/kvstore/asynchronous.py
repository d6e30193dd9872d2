"""What workers run of the stores that don't wait for each other; see `workers.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from workers import make, refused

from mxopt import kvstore
from mxopt.errors import KVStoreError


def asynchronous(arguments: Any) -> None:
    """dist_async: refused without an optimizer; each of the two workers' pushes counts once."""
    store = kvstore.create("dist_async")
    store.init(0, np.zeros(3, np.float32))
    words = "server 0: key 0: dist_async needs an optimizer"
    refused(KVStoreError, words, store.push, 0, np.ones(3, np.float32))
    store.barrier()
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    store.barrier()
    out = np.zeros(3, np.float32)
    for _ in range(10):
        store.pushpull(0, np.ones(3, np.float32), out=out)
    store.barrier()
    store.pull(0, out)
    store.barrier()
    assert out.tolist() == [-20] * 3


def stale(arguments: Any) -> None:
    """dist_ssp: rank 0 is held back until rank 1 has pushed too."""
    store = kvstore.create("dist_ssp")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    out = np.zeros(1, np.float32)
    store.init(0, out)
    seen = []
    if store.rank == 0:
        for _ in range(6):
            store.pushpull(0, np.ones(1, np.float32), out=out)
            seen.append(float(out[0]))
        assert seen[:3] == [-1, -2, -3]
        assert seen[3] < -4  # held back until the other had pushed
    else:
        while out[0] > -3:  # rank 0 gets so far alone
            store.pull(0, out)
        for _ in range(6):
            store.pushpull(0, np.ones(1, np.float32), out=out)
    store.barrier()
    store.pull(0, out)
    assert out.tolist() == [-12]


def delay_compensated(arguments: dict[str, Any]) -> None:
    """Workers that take turns, as `turns` says, with DCASGD; beside it the formula, with a previous
    weight for each."""
    store = kvstore.create("dist_async")
    rate, momentum, lamda, wd = np.float32(0.1), np.float32(0.9), np.float32(0.5), np.float32(0.01)
    if store.rank == 0:
        options = {"learning_rate": 0.1, "momentum": 0.9, "lamda": 0.5, "wd": 0.01}
        store.set_optimizer(make("dcasgd", options))
    rng = np.random.default_rng(5)
    weight = rng.normal(size=arguments["size"]).astype(np.float32)
    store.broadcast("w", weight, weight)
    store.barrier()  # everybody has the first value before the first push
    expected, velocity = weight.copy(), np.zeros_like(weight)
    previous = [weight.copy() for _ in range(store.num_workers)]
    shared = weight.copy()  # what one previous weight for all workers would give
    shared_previous, shared_velocity = weight.copy(), np.zeros_like(weight)
    for turn, rank in enumerate(arguments["turns"]):
        grad = rng.normal(size=weight.shape).astype(np.float32)
        if store.rank == rank:
            store.push("w", grad)
            store.pull("w", weight)
        store.barrier()
        velocity = momentum * velocity - rate * (
            grad + wd * expected + lamda * grad * grad * (expected - previous[rank])
        )
        previous[rank] = expected.copy()
        expected = expected + velocity
        shared_velocity = momentum * shared_velocity - rate * (
            grad + wd * shared + lamda * grad * grad * (shared - shared_previous)
        )
        shared_previous = shared.copy()
        shared = shared + shared_velocity
        store.pull("w", weight)
        np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=1e-6, err_msg=f"turn {turn}")
        store.barrier()
    assert np.abs(weight - shared).max() > 0.01
