"""What the workers of `test_table_jobs.py` run; see `workers.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workers import make, refused, same, summed

import mxopt
from mxopt import kvstore, sparse
from mxopt.document import load_document
from mxopt.errors import ArrayError, ArrayTypeError, KVStoreError
from mxopt.sparse import RowSparse, row_sparse_array

ROWS = 3000
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"momentum": 0.9}), ("adam", {}), ("adagrad", {}), ("ftrl", {}), ("groupadagrad", {"wd": 0.0}),
    ("rmsprop", {"lazy_update": True}), ("adam", {"multi_precision": True}), ("adam", {"state_dtype": "bfloat16"}),
]  # fmt: skip
FIRST: dict[str, Callable[[str], Any]] = {
    "zeros": lambda dtype: sparse.table((ROWS, 16), dtype),
    "constant": lambda dtype: sparse.table((ROWS, 16), dtype, "constant", 0.5),
    "uniform": lambda dtype: sparse.table((ROWS, 16), dtype, "uniform", 0.5, seed=3),
    "row-sparse": lambda dtype: gradient(np.random.default_rng(9), dtype, 500),
}


def gradient(rng: np.random.Generator, dtype: str, count: int = 200) -> RowSparse:
    ids = np.sort(rng.choice(ROWS, count, replace=False))
    return row_sparse_array((rng.normal(size=(count, 16)).astype(dtype), ids), (ROWS, 16))


def pulled(store: Any, key: Any, dtype: str, ids: Any = range(ROWS)) -> np.ndarray:
    out = sparse.zeros("row_sparse", (ROWS, 16), dtype)
    store.row_sparse_pull(key, out, row_ids=np.array(ids))
    return np.array(out.data)


def optimizers(arguments: dict[str, Any]) -> None:
    """Every first value under every optimizer, on servers beside a local store that gets the
    sum."""
    store, local = kvstore.create(arguments.get("mode", "dist_sync")), kvstore.create()
    workers = range(store.num_workers)
    for number, (name, options) in enumerate(OPTIMIZERS):
        dtype = "float16" if "multi_precision" in options else "float32"
        for each in (store, local):
            each.set_optimizer(make(name, {"learning_rate": 0.1, "wd": 0.01, **options}))
        for first, value in FIRST.items():
            key, rng = f"{number} {first}", np.random.default_rng(number)
            for each in (store, local):
                each.init(key, value(dtype))
            for step in range(4):
                grads = [gradient(rng, dtype) for _ in workers]
                if step == 2:
                    grads = [row_sparse_array((ROWS, 16), dtype=dtype), *grads[1:]]
                total = grads[0]
                if len(grads) > 1:  # in float32, as servers sum
                    total = summed([g.astype(np.float32) for g in grads])
                    total = total if dtype == "float32" else total.astype(np.float32)
                store.push(key, grads[store.rank])
                local.push(key, total)
                assert same(pulled(store, key, dtype), pulled(local, key, dtype)), (
                    f"{name} {options} {first} step {step}"
                )


def saved(arguments: dict[str, Any]) -> None:
    """States of row-sparse values, in files beside those of a local store. Some rules give rows a
    state that have had no gradient."""
    store, local = kvstore.create("dist_sync"), kvstore.create()
    for number, (name, options) in enumerate([*OPTIMIZERS, ("ftml", {}), ("adabelief", {}), ("adamax", {})]):
        paths = []
        for each in (store, local):
            rng = np.random.default_rng(number)
            each.set_optimizer(make(name, {"learning_rate": 0.1, **options}))
            each.init(number, gradient(rng, "float32", 500))
            for _ in range(2):
                each.push(number, gradient(rng, "float32"))
            paths.append(Path(arguments["folder"], f"{type(each).__name__}-{name}"))
            each.save_optimizer_states(paths[-1])
        there, here = (load_document(path.read_bytes())["states"][number] for path in paths)
        for mine, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (there, here)), strict=True):
            assert same(mine.asnumpy(), other.asnumpy()), name


def kept(arguments: Any) -> None:
    """What a table and a row-sparse value give and refuse."""
    store = kvstore.create("dist_sync")
    shape, dense, rows = (ROWS, 16), np.zeros((ROWS, 16), np.float32), sparse.zeros("row_sparse", (ROWS, 16))
    store.init(["t", "v"], [sparse.table(shape, init="constant", scale=2.0), FIRST["row-sparse"]("float32")])
    store.init("huge", sparse.zeros("row_sparse", (10**9, 16)))
    one = row_sparse_array((np.ones((1, 16), np.float32), [7]), shape)
    is_table = "key 't' is a table"
    refused(KVStoreError, f"{is_table}, which isn't pulled as a whole: row_sparse_pull", store.pull, "t", dense)
    refused(KVStoreError, is_table, store.pull, "t", rows)
    refused(KVStoreError, is_table, store.pushpull, "t", one, dense)
    words = f"{is_table}, to which row-sparse arrays are pushed; got a dense one"
    refused(ArrayError, words, store.push, "t", dense)
    refused(KVStoreError, "key 'w' is a table", store.broadcast, "w", sparse.table(shape), dense)
    words = "key 't': value: a table is what a key is initialised with"
    refused(ArrayTypeError, words, store.push, "t", sparse.table(shape))
    refused(KVStoreError, "key 't' is initialised already", store.init, "t", sparse.table(shape))
    refused(ArrayError, "key 'huge': the store holds shape", store.pull, "huge", dense)
    words = "key 'w': servers hold rows of at most 4194304 bytes, these have 8000000"
    refused(ArrayError, words, store.init, "w", sparse.table((2, 2_000_000)))
    store.push("t", one)
    store.push("t", one)
    before = np.array(FIRST["row-sparse"]("float32").asnumpy())
    store.pull("v", dense)
    assert same(dense, before)
    store.pull("v", rows)
    assert len(rows.indices) == 0  # is left alone
    store.push("v", one)
    store.pull("v", dense)
    assert same(dense, one.asnumpy() * store.num_workers)  # is replaced
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, lazy_update=False))
    store.pushpull("v", np.ones(shape, np.float32), dense)
    assert dense[6:8, 0].tolist() == [-2, 0]
    assert pulled(store, "t", "float32", [6, 7])[:, 0].tolist() == [2, 2]  # twice the sum of both, before the optimizer
    store.barrier()
    if store.rank == 0:
        store.init("w", sparse.table((5, 2), seed=1))
    else:
        words = "key 'w': rank 0 initialised <Table 5x2 float32, zeros>"
        refused(ArrayError, words, store.init, "w", sparse.table((5, 2), seed=2))


def train(arguments: dict[str, Any]) -> str:
    """Some steps on a table; with the states of a file, and into one. The bits that result."""
    store = kvstore.create(arguments.get("store", "dist_sync"))
    store.set_optimizer(mxopt.create("adam", learning_rate=0.1, multi_precision=True))
    store.init("t", sparse.table((ROWS, 16), "float16", "uniform", seed=4))
    first, steps = arguments["first"], arguments["steps"]
    if "load" in arguments:
        store.push("t", row_sparse_array((np.ones((1, 16), np.float16), [5]), (ROWS, 16)))  # is forgotten
        store.load_optimizer_states(arguments["load"])
    for step in range(first, first + steps):
        grad = gradient(np.random.default_rng(step), "float16")
        store.push("t", grad if store.rank == 0 else row_sparse_array((ROWS, 16), dtype="float16"))
    found = pulled(store, "t", "float16").tobytes().hex()
    if "save" in arguments and store.rank == 0:
        store.save_optimizer_states(arguments["save"])
    store.barrier()
    return found


def trained(store: Any, first: int, last: int, begin: bool) -> str:
    """Steps on every kind of first value, from a checkpoint's or beginning with them; a digest of
    the rows after."""
    if begin:
        for key, value in FIRST.items():
            store.init(key, value("float16"))
        store.init("untouched", sparse.table((ROWS, 16), "float16", "uniform", seed=5))
    for step in range(first, last):
        for number, key in enumerate(FIRST):
            grad = gradient(np.random.default_rng([step, number]), "float16")
            store.push(key, grad if store.rank == 0 else row_sparse_array((ROWS, 16), dtype="float16"))
    found = [pulled(store, key, "float16").tobytes() for key in [*FIRST, "untouched"]]
    return hashlib.sha256(b"".join(found)).hexdigest()


def checkpointed(arguments: dict[str, Any]) -> list[Any]:
    """Such steps from a checkpoint, or up to one: the digest, and the round of a table."""
    store = kvstore.create(arguments["mode"])
    store.set_optimizer(make("adam", {"learning_rate": 0.1, "multi_precision": True}))
    if "load" in arguments:
        store.load_checkpoint(arguments["load"])
    found = trained(store, arguments["first"], arguments["last"], "load" not in arguments)
    if "save" in arguments:
        store.save_checkpoint(arguments["save"])
    store.barrier()
    return [found, store.round("uniform")]
