"""What workers run of a `Trainer`; see `workers.py`."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from workers import refused

from mxopt import Parameter, Trainer, clip_global_norm, create, kvstore, lr_scheduler
from mxopt.errors import ArgumentError, KVStoreError
from mxopt.sparse import row_sparse_array


def parameters() -> dict[str, Parameter]:
    """Two small ones with multipliers."""
    return {
        "w": Parameter(np.ones((3, 2), np.float32), wd_mult=0.0),
        "b": Parameter(np.full(2, 2, np.float32), lr_mult=0.5),
    }


def steps(params: dict[str, Parameter], trainer: Trainer) -> list[Any]:
    """Three steps with a changed rate: the values after them."""
    for step in range(3):
        if step == 2:
            trainer.set_learning_rate(0.5)
        for p in params.values():
            p.grad = np.ones(p.shape, np.float32)
        trainer.step(2)
    return [p.value.tolist() for p in params.values()]


def train(arguments: dict[str, Any]) -> list[Any]:
    """A Trainer's steps."""
    params = parameters()
    return steps(params, Trainer(params, "sgd", {"learning_rate": 1.0, "wd": 0.1}, **arguments))


def scheduled(arguments: dict[str, Any]) -> list[list[float]]:
    """Updates under a schedule whose rate is assigned on the way: the weights after each."""
    arguments = dict(arguments)
    schedule = lr_scheduler.FactorScheduler(2, 0.5, base_lr=1.0)
    grad = np.full(1, arguments.pop("grad"), np.float32)
    optimizer = create(arguments.pop("optimizer"), lr_scheduler=schedule, **arguments.pop("options"))
    params = [Parameter(np.zeros(1, np.float32), name) for name in ("v", "w")[: arguments.pop("parameters", 1)]]
    trainer, found = Trainer(params, optimizer, **arguments), []
    for step in range(9):
        if step == 4:
            schedule.base_lr = 0.75
        if step == 7:
            schedule.base_lr *= 0.5
        for param in params:
            param.grad = grad
        trainer.step(1)
        found.append([float(param.value[0]) for param in params])
    return found


def set_data(arguments: dict[str, Any]) -> None:
    """A Trainer's step, `set_data`, which is refused where the servers update, another step."""
    param = Parameter(np.ones(2, np.float32), "w")
    param.grad = np.ones(2, np.float32)
    trainer = Trainer([param], "sgd", {"learning_rate": 1.0}, kvstore="dist_sync", **arguments)
    trainer.step(1)
    assert param.value.tolist() == [0, 0]
    if arguments["update_on_kvstore"]:
        refused(KVStoreError, "", param.set_data, np.full(2, 5))
    else:
        param.set_data(np.full(2, 5))
        assert param.value.tolist() == [5, 5]
    before = param.value.copy()
    trainer.step(1)
    assert param.value.tolist() == (before - 1).tolist()


def stale(arguments: dict[str, Any]) -> None:
    """Steps in which each of two workers has a gradient for one of three parameters."""
    params, rank = {name: Parameter(np.ones(2, np.float32)) for name in "abc"}, int(os.environ["DMLC_WORKER_ID"])
    trainer = Trainer(params, "sgd", {"learning_rate": 1.0}, kvstore="dist_sync", **arguments)
    for _ in range(2):
        for param in params.values():
            param.grad = None
        params["ab"[rank]].grad = np.full(2, 1 + rank, np.float32)
        trainer.step(1, ignore_stale_grad=True)
    assert [p.value.tolist() for p in params.values()] == [[-1, -1], [-3, -3], [1, 1]]


def guarded(arguments: Any) -> None:
    """Three clipped steps, in the second of which the last worker has a NaN: refused where the
    servers update, and skipped where they don't."""
    param, store = Parameter(np.zeros(2, np.float32), "w"), kvstore.create("dist_sync")

    def trainer(update: bool) -> Trainer:
        guard: dict[str, Any] = {"clip_global_norm": 2.5, "skip_nonfinite": True}
        optimizer = create("sgd", learning_rate=1.0)
        return Trainer([param], optimizer, kvstore=store, update_on_kvstore=update, **guard)

    param.grad = np.ones(2, np.float32)
    refused(ArgumentError, "clip_global_norm needs the summed gradients", trainer(True).step, 1)
    by_itself = trainer(False)
    for step in range(3):
        param.grad = np.array([3, 4], np.float32)
        if step == 1 and store.rank == store.num_workers - 1:
            param.grad[0] = np.nan
        by_itself.step(1)
    assert by_itself.skipped == 1
    assert param.value.round(6).tolist() == [-3, -4]


def guarded_rows(servers: bool) -> None:
    """A row-sparse gradient where a Trainer is to clip is refused, in words that name two ways;
    then a step by one of these: the servers update, or the Trainer."""
    param, store = Parameter(np.zeros((4, 1), np.float32), "w"), kvstore.create("dist_sync")
    param.grad = row_sparse_array((np.array([[3], [4]], np.float32), [0, 1 + store.rank]), shape=param.shape)

    def trainer(**options: Any) -> Trainer:
        return Trainer([param], create("sgd", learning_rate=1.0), kvstore=store, **options)

    words = "update_on_kvstore=False, and with a store that isn't asynchronous; row-sparse gradients go there as dense"
    refused(ArgumentError, words, trainer(clip_global_norm=2.5).step, 1)
    if servers:
        clip_global_norm([param.grad], 2.5)
        goes_on = trainer()
    else:
        goes_on = trainer(clip_global_norm=2.5, update_on_kvstore=False)
        words = "give it the gradient as a dense array, grad.todense(); or make it with update_on_kvstore=True"
        refused(ArgumentError, words, goes_on.step, 1)
        param.grad = param.grad.todense()
    goes_on.step(1)
    sum_of_clipped, clipped_sum = [-3, -2, -2, 0], np.array([6, 4, 4, 0]) / -math.sqrt(68) * 2.5
    np.testing.assert_allclose(param.value.ravel(), sum_of_clipped if servers else clipped_sum, atol=1e-6)
