"""What a worker of test_priority.py runs: pushes of more than a connection takes, the later the
more urgent."""

from __future__ import annotations

from typing import Any

import numpy as np
from workers import same

import mxopt
from mxopt import kvstore
from mxopt.lr_scheduler import FactorScheduler


def train(arguments: dict[str, Any]) -> None:
    """All keys, beside a local updater."""
    store = kvstore.create("dist_async")

    def adam() -> mxopt.Optimizer:
        return mxopt.create("adam", learning_rate=0.1, lr_scheduler=FactorScheduler(1, 0.5, base_lr=0.1))

    store.set_optimizer(adam())
    local = mxopt.get_updater(adam())
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(2500, 1000)).astype(np.float32) for _ in range(6)]
    expected = [weight.copy() for weight in weights]
    keys = list(range(6))
    store.broadcast(keys, weights, weights)
    waited = False
    for step in range(4):  # what is pushed later overtakes what waits of the step before
        for key in keys:
            grad = rng.normal(size=weights[key].shape).astype(np.float32)
            store.push(key, grad, priority=step)
            local(key, grad, expected[key])
            waited |= bool(store._connections.channels[0].backlog)
    for key in keys:
        store.pull(key, weights[key])
    assert waited
    assert [key for key in keys if not same(weights[key], expected[key])] == []
