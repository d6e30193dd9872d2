"""What workers of the tests of checkpoints run: `checkpointed.py FOLDER ROUNDS save|load|no`."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
from durable import SHAPES, TABLE, gradient, rows, rows_of

import mxopt
from mxopt import kvstore


def main(folder: str, rounds: int, how: str) -> None:
    """Trains to round `rounds`, from a checkpoint's on, and saves one."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(mxopt.create("adam", learning_rate=0.01))
    values = {key: np.ones(shape, np.float32) for key, shape in SHAPES.items()}
    if how == "load":
        store.load_checkpoint(folder)
    else:
        for key, value in values.items():
            store.init(key, value)
        store.init("t", TABLE)
    store.pull(list(values), list(values.values()))
    first = store.round("w")
    for round in range(first, rounds):
        for key in SHAPES:
            store.push(key, gradient(key, round, store.rank))
        store.push("t", rows(round, store.rank))
        for key, value in values.items():
            store.pull(key, out=value)
    if how == "save":
        store.save_checkpoint(folder)
    if store.rank == 0:
        digest = hashlib.sha256(b"".join([*(value.tobytes() for value in values.values()), rows_of(store)])).hexdigest()
        print(f"ENDED {digest} {first}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
