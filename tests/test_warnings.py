"""Warnings are given at the line that called mxopt, however deep within they come from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mxopt
from mxopt import Parameter, create, get_updater, kvstore, lr_scheduler, nn
from mxopt.experimental import optim

NARROW = np.ones(3, ml_dtypes.bfloat16)
HALF = np.ones(3, np.float16)


def twice() -> list[Parameter]:
    return [Parameter(np.ones(3, np.float32), "w")] * 2


def stepping() -> mxopt.Trainer:
    param = Parameter(np.ones(3, np.float32), "w")
    param.grad = np.full(3, math.nan, np.float32)
    return mxopt.Trainer([param], "sgd", clip_global_norm=1.0)


class SGD(mxopt.optimizer.SGD):
    """Another of this name."""


class TestStore(mxopt.kvstore.KVStoreBase):
    """Another of this name."""

    __test__ = False


CALLS: dict[str, Callable[[], object]] = {
    "experimental, of bfloat16": lambda: optim.Adam([NARROW], 0.1),
    "a group of bfloat16": lambda: optim.SGD([np.ones(2)], 0.1).add_param_group({"params": [NARROW]}),
    "nn, of bfloat16": lambda: nn.Adam([NARROW], 0.1),
    "an updater, of bfloat16": lambda: get_updater(create("adam"))(0, NARROW, NARROW.copy()),
    "its list": lambda: get_updater(create("adam"))([0], [NARROW], [NARROW.copy()]),
    "a store, of float16": lambda: pushed(),
    "a state": lambda: create("sgd").create_state_multi_precision(0, HALF),
    "a negative rate": lambda: create("sgd", learning_rate=-1),
    "Adam's": lambda: create("adam", learning_rate=-1),
    "that of a class": lambda: mxopt.optimizer.Adam(learning_rate=-1),
    "one that is set": lambda: create("sgd").set_learning_rate(-1),
    "a rate beside a schedule": lambda: create("adam", learning_rate=1, lr_scheduler=lr_scheduler.CosineScheduler(5)),
    "an idle lr_mult": lambda: create("sgd", param_idx2name={0: "w"}).set_lr_mult({"x": 2}),
    "an idle wd_mult": lambda: create("sgd", param_idx2name={0: "w"}).set_wd_mult({"x": 2}),
    "a name taken": lambda: mxopt.register(SGD),
    "the same": lambda: mxopt.Optimizer.register(SGD),
    "a store's": lambda: mxopt.kvstore.KVStoreBase.register(TestStore),
    "a parameter twice": lambda: mxopt.Trainer(twice(), "sgd"),
    "in a dict": lambda: mxopt.Trainer(dict(zip("ab", twice(), strict=True)), "sgd"),
    "in averages": lambda: mxopt.ExponentialMovingAverage(twice()),
    "a norm": lambda: mxopt.clip_global_norm([np.full(2, math.nan)], 1.0),
    "a Trainer's norm": lambda: stepping().step(1),
}


def pushed() -> None:
    store = kvstore.create("local")
    store.set_optimizer(create("sgd"))
    store.init("w", HALF)
    store.push("w", HALF)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_warning_is_given_at_the_callers_line(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (mxopt.Optimizer.opt_registry, mxopt.kvstore.KVStoreBase.kv_registry):
        for name, klass in list(registry.items()):
            monkeypatch.setitem(registry, name, klass)  # put back at the end
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {(type(each.message), each.filename) for each in caught} == {(UserWarning, __file__)}
