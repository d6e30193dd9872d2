"""What workers run with very many parameters; see `workers.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from workers import make

from mxopt import kvstore


def named(arguments: dict[str, Any]) -> None:
    """Two updates of `count` named parameters, each with a multiplier, at rates that change
    between."""
    count = arguments["count"]
    names = [f"{'block.' * 40}{k}.weight" for k in range(count)]  # long, so that fewer make as many bytes
    optimizer = make("sgd", {"learning_rate": 1.0, "param_idx2name": dict(enumerate(names))})
    optimizer.set_lr_mult(dict.fromkeys(names, 0.5))
    store = kvstore.create("dist_sync")
    store.set_optimizer(optimizer)
    outs = [np.zeros(1, np.float32) for _ in names]
    store.broadcast(names, outs, outs)
    grads = [np.ones(1, np.float32) for _ in names]
    for rate, weight in ((1.0, -0.5), (2.0, -1.5)):
        optimizer.lr = rate
        store.pushpull(names, grads, out=outs)
        assert {float(out[0]) for out in outs} == {weight}
