"""What the workers of `test_uneven_jobs.py` run; see `workers.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from workers import caught, make

from mxopt import kvstore


def loop(arguments: dict[str, Any]) -> str:
    """MXNet's loop over keys, in which worker 1 leaves something out: the error, and the step in
    which it came."""
    store, out = kvstore.create("dist_sync"), np.zeros(3, np.float32)
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    store.init(["a", "b"], [out, out])

    def step(number: int) -> None:
        store.step = number if arguments["steps"] else 0
        for key in "ab":
            left_out = number == 3 and key == "b" and store.rank == 1 and arguments["leaves"] != "rest"
            if not left_out:
                store.push(key, np.ones(3, np.float32))
            if arguments["steps"] and number == 3 and key == "b":
                store.barrier()  # the other's push is there
            if not (left_out and arguments["leaves"] == "all"):
                store.pull(key, out)

    for number in range(1, 6):
        if arguments["leaves"] == "rest" and number == 4 and store.rank == 1:
            store.close()
            return "ended"
        error = caught(step, number)
        if error is not None:
            return f"step {number}: {error}"
    return "no error"
