"""States in bfloat16 on servers: striped, in pieces, by rows, over restarts, the bits are those of
one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulation.jobs import Job, Plan
from simulation.programs import gradients, result

import mxopt
from mxopt.experimental import optim
from mxopt.sparse import RowSparse, row_sparse_array

SHAPES = {"small": (5,), "pieces": (700_001,), "matrix": (300, 4), "rows": (40, 4)}
STEPS = 3


def first() -> list[np.ndarray]:
    return [np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in SHAPES.values()]


def by_name(name: str) -> Callable[[list[np.ndarray]], Any]:
    options = {"momentum": 0.9} if name == "sgd" else {"lazy_update": True} if name == "adam" else {}
    return lambda weights: mxopt.create(name, learning_rate=0.1, state_dtype="bfloat16", seed=5, **options)


def grouped(weights: list[np.ndarray]) -> Any:
    params = [mxopt.Parameter(w, name) for w, name in zip(weights, SHAPES, strict=True)]
    return optim.AdamW(params, state_dtype="bfloat16", seed=5, lazy_update=True)


MAKE = {"adam": by_name("adam"), "sgd": by_name("sgd"), "lamb": by_name("lamb"), "AdamW": grouped}


def given(rank: int, step: int) -> list[Any]:
    *dense, rows = gradients(SHAPES, rank, step)
    ids = np.arange((rank + step) % 3, 40, 3)
    return [*dense, row_sparse_array((rows[ids], ids), shape=(40, 4))]


def program(make: Callable[[list[np.ndarray]], Any]) -> Callable[..., bytes]:
    def run(store: Any, pause: Callable[[], None]) -> bytes:
        weights = first()
        store.set_optimizer(make(weights))
        store.broadcast(list(SHAPES), weights, weights)
        for step in range(STEPS):
            pause()
            grads = given(store.rank, step)
            store.pushpull(list(SHAPES)[:3], grads[:3], out=weights[:3])
            store.push("rows", grads[3])
        store.barrier()
        store.pull("rows", weights[3])
        return result(weights)

    return run


def alone(make: Callable[[list[np.ndarray]], Any], workers: int) -> bytes:
    weights = first()
    optimizer = make(weights)
    store = mxopt.kvstore.create("local")
    store.init(list(SHAPES), weights)
    store.set_optimizer(optimizer)
    for step in range(STEPS):
        each = [given(rank, step) for rank in range(workers)]
        store.push(list(SHAPES), each[0] if workers == 1 else list(map(_sum, *each)))
    store.pull(list(SHAPES), weights)
    return result(weights)


def _sum(a: Any, b: Any) -> Any:
    if not isinstance(a, RowSparse):
        return a + b
    ids = np.union1d(a.indices, b.indices)
    return row_sparse_array(((a.todense() + b.todense())[ids], ids), shape=a.shape)


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", MAKE)
def test_servers_give_the_bits_of_one_process(name: str, workers: int, servers: int) -> None:
    job = Job(Plan("", "sync", workers, servers, 1), program(MAKE[name]))
    job.run()
    assert [worker.error for worker in job.workers] == [None] * workers
    assert {worker.result for worker in job.workers} == {alone(MAKE[name], workers)}


@pytest.mark.parametrize("name", ["adam", "AdamW"])
def test_servers_that_come_back_go_on_with_them(name: str) -> None:
    crashes = {0: (9, "after", 0.5), 1: (6, "before", 0.3)}
    job = Job(Plan("", "sync", 2, 2, 1, crashes=crashes, durability="journal"), program(MAKE[name]))
    job.run()
    assert job.starts > 2
    assert {worker.result for worker in job.workers} == {alone(MAKE[name], 2)}
