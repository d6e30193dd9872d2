"""What the workers of a disturbed job run: `python program.py FOLDER PROGRAM STEPS SECONDS`.

Every gradient is a function of key, step and worker, and a key goes on where `store.round` says, so
that a job that is taken up again makes the steps that are left. Worker 0 writes the final weights
to FOLDER/weights.npz.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

import mxopt
from mxopt.kvstore import create
from mxopt.sparse import row_sparse_array

SHAPES = {"bias": (5,), "kernel": (30, 70), "wide": (7001,), "rows": (400, 8)}
# Name of a program: the store's mode, the optimizer. In "counts" every gradient is a whole number
# and is subtracted as it is, so that the end doesn't depend on the order of pushes: one that is
# lost, or applied twice, shows.
PROGRAMS = {
    "adam": ("dist_sync", mxopt.optimizer.Adam(learning_rate=0.01)),
    "momentum": ("dist_sync", mxopt.optimizer.SGD(learning_rate=0.1, momentum=0.9)),
    "lamb": ("dist_sync", mxopt.optimizer.LAMB(learning_rate=0.01)),
    "counts": ("dist_async", mxopt.optimizer.SGD(learning_rate=1.0, wd=0.0)),
}


def main() -> None:
    folder, program, steps, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    mode, optimizer = PROGRAMS[program]
    store = create(mode)
    store.set_optimizer(optimizer)
    weights = {key: np.zeros(shape, np.float32) for key, shape in SHAPES.items()}
    store.init(list(weights), list(weights.values()))
    begun = {key: store.round(key) for key in weights}
    (folder / f"began-{store.rank}").touch()
    for step in range(steps):
        for key, weight in weights.items():
            if step >= begun[key]:
                store.push(key, gradient(program, key, step, store.rank))
                store.pull(key, out=weight)
        time.sleep(seconds)
    store.barrier()
    store.pull(list(weights), out=list(weights.values()))
    if store.rank == 0:
        np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]  # of `allow_pickle`
    store.barrier()


def gradient(program: str, key: str, step: int, rank: int) -> mxopt.sparse.RowSparse | np.ndarray:
    rng = np.random.default_rng([*key.encode(), step, rank])
    shape = SHAPES[key]
    if key == "rows":
        ids = np.unique(rng.integers(0, shape[0], 20))
        return row_sparse_array((_draw(rng, program, (len(ids), shape[1])), ids), shape)
    return _draw(rng, program, shape)


def _draw(rng: np.random.Generator, program: str, shape: tuple[int, ...]) -> np.ndarray:
    if program == "counts":
        return rng.integers(-3, 4, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32)


if __name__ == "__main__":
    main()
