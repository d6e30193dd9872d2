"""Factorises the digits that scikit-learn ships, on embedding tables: a picture and a pixel have a
vector each, whose product is how dark the pixel is. A tenth of the pixels isn't shown, and is
guessed from the others.

The tables have room for a billion pictures and a billion pixels; rows take memory once they are
used. Runs alone, or in a job, where each worker sees its share of the pictures.

    python docs/examples/factorization.py
    mxopt-launch -n 2 -s 2 python docs/examples/factorization.py

Needs scikit-learn: pip install '.[examples]'
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
from sklearn.datasets import load_digits

import mxopt
from mxopt import sparse
from mxopt.kvstore import KVStore

ROWS, RANK = 10**9, 6
BATCH, EPOCHS = 2048, 12


def id_of(name: str) -> int:
    """A number for a name, as of a user or a product: spread over the table, without a list of all
    names."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % ROWS


def pixels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(picture, pixel, darkness from 0 to 1) of all pixels of all pictures, in a random order."""
    images = load_digits().images
    picture = np.array([id_of(f"picture {k}") for k in range(len(images))])
    pixel = np.array([id_of(f"row {r}, column {c}") for r in range(8) for c in range(8)])
    order = np.random.default_rng(0).permutation(images.size)
    dark = images.reshape(-1)[order].astype(np.float32) / 16
    return picture[order // 64], pixel[order % 64], dark


def vectors(store: KVStore, table: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows `ids` of a table, one each; and which rows there are among them, and where each
    is."""
    distinct, place = np.unique(ids, return_inverse=True)
    found = sparse.zeros("row_sparse", (ROWS, RANK))
    store.row_sparse_pull(table, found, row_ids=distinct)
    return found.data[place], distinct, place


def push(store: KVStore, table: str, grads: np.ndarray, distinct: np.ndarray, place: np.ndarray) -> None:
    """Pushes the sums of the gradients of each row."""
    total = np.zeros((len(distinct), RANK), np.float32)
    np.add.at(total, place, grads)
    store.push(table, sparse.row_sparse_array((total, distinct), (ROWS, RANK)))


def error(store: KVStore, picture: np.ndarray, pixel: np.ndarray, dark: np.ndarray) -> float:
    """How far guesses are off: the root of the mean square."""
    of_picture, of_pixel = vectors(store, "pictures", picture)[0], vectors(store, "pixels", pixel)[0]
    guess = (of_picture * of_pixel).sum(axis=1)
    return float(np.sqrt(np.mean((guess - dark) ** 2)))


def main() -> None:
    store = mxopt.kvstore.create("dist_sync" if "DMLC_PS_ROOT_URI" in os.environ else "local")
    store.set_optimizer(mxopt.create("adam", learning_rate=0.02))
    for seed, table in enumerate(("pictures", "pixels")):
        store.init(table, sparse.table((ROWS, RANK), init="uniform", scale=0.5, seed=seed))
    picture, pixel, dark = pixels()
    shown = len(dark) * 9 // 10
    mine = slice(store.rank, shown, store.num_workers)
    seen = [x[:shown][mine] for x in (picture, pixel, dark)]
    hidden = [x[shown:] for x in (picture, pixel, dark)]
    steps = shown // store.num_workers // BATCH
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(seen[0]))
        for step in range(steps):
            a, b, target = (x[order[step * BATCH : (step + 1) * BATCH]] for x in seen)
            (u, *places_of_u), (v, *places_of_v) = vectors(store, "pictures", a), vectors(store, "pixels", b)
            wrong = ((u * v).sum(axis=1) - target)[:, None] / (BATCH * store.num_workers)
            push(store, "pictures", wrong * v, *places_of_u)
            push(store, "pixels", wrong * u, *places_of_v)
    store.barrier()
    guessed, flat = error(store, *hidden), float(np.std(hidden[2]))
    print(f"worker {store.rank}: hidden pixels are guessed to {guessed:.3f}, by their mean to {flat:.3f}")


if __name__ == "__main__":
    main()
