"""Copies of what holds no socket: deepcopy, pickle, cloudpickle, processes by spawn; and how long
things live."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import bitwise
import numpy as np
import pytest
from table import ALL, Grouped, Row

import mxopt
from mxopt import nn
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules

cloudpickle = pytest.importorskip("cloudpickle")

WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle 2": lambda x: pickle.loads(pickle.dumps(x, 2)),
    "cloudpickle": lambda x: pickle.loads(cloudpickle.dumps(x)),
}
every_way = pytest.mark.parametrize("way", WAYS)
GRADS = [np.random.default_rng(k).standard_normal((3, 2)).astype(np.float32) for k in range(6)]


def weight() -> mxopt.Parameter:
    return mxopt.Parameter(np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2), "fc.weight")


class Run:
    """An optimizer, what it trains, and what steps with it."""

    def __init__(self, parameter: Any, optimizer: Any, schedule: Any = None) -> None:
        self.parameter, self.optimizer, self.schedule = parameter, optimizer, schedule

    def step(self, grad: np.ndarray) -> None:
        if isinstance(self.optimizer, mxopt.Updater):
            self.optimizer("fc.weight", grad, self.parameter.value)
        elif isinstance(self.optimizer, mxopt.Trainer):
            self.parameter.grad = grad
            self.optimizer.step(1)
        elif isinstance(self.optimizer, bitwise.Run):
            self.optimizer.step([grad])
        else:
            self.optimizer((grad,))
        if self.schedule is not None:
            self.schedule.step()

    def bits(self) -> bytes:
        return bytes(np.asarray(self.parameter.value).tobytes())


def of_row(row: Row) -> Run:
    w = weight()
    return Run(w, row.run([w.value]))


def scheduled(make: Callable[[Any], Any]) -> Run:
    w = weight()
    optimizer = optim.Adam([w], lr=0.1)
    return Run(w, optimizer, make(optimizer))


def one_rate() -> Run:
    optimizer = mxopt.create("sgd", learning_rate=0.1, momentum=0.9)
    return Run(weight(), mxopt.get_updater(optimizer), schedules.ExponentialLR(optimizer, 0.5))


def mxnet_schedule() -> Run:
    schedule = mxopt.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.5)
    return Run(weight(), mxopt.get_updater(mxopt.create("sgd", lr_scheduler=schedule)))


def trainer(optimizer: Any = "adam", **options: Any) -> Run:
    w = weight()
    return Run(w, mxopt.Trainer([w], optimizer if isinstance(optimizer, str) else optimizer([w]), **options))


def lars() -> Run:
    w = weight()
    return Run(w, nn.LARS(nn.Momentum([w], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 0.9, weight_decay=0.1)))


def narrow(make: Callable[[Any], Any]) -> Run:
    w = weight()
    return Run(w, make([w]))


RUNS: dict[str, Callable[[], Run]] = {
    "create adam, bfloat16": lambda: narrow(lambda _: mxopt.Updater(mxopt.create("adam", state_dtype="bfloat16"))),
    "experimental Adam, bfloat16": lambda: narrow(lambda w: optim.Adam(w, state_dtype="bfloat16", seed=3)),
    "nn Adam, bfloat16": lambda: narrow(lambda w: nn.Adam(w, state_dtype="bfloat16", seed=3)),
    **{str(row): (lambda row=row: of_row(row)) for row in ALL},  # type: ignore[misc]
    "StepLR": lambda: scheduled(lambda o: schedules.StepLR(o, 2)),
    "CyclicLR": lambda: scheduled(lambda o: schedules.CyclicLR(o, 0.1, 0.5, 2)),
    "SequentialLR": lambda: scheduled(
        lambda o: schedules.SequentialLR(o, [schedules.ConstantLR(o, 0.5, 2), schedules.ExponentialLR(o, 0.9)], [3])
    ),
    "one rate": one_rate,
    "MXNet's schedule": mxnet_schedule,
    "nn schedule": lambda: of_row(Grouped("nn.SGD", learning_rate=nn.ExponentialDecayLR(0.1, 0.5, 2))),
    "nn LARS": lars,
    "Trainer": trainer,
    "Trainer with a store": lambda: trainer(kvstore="local", update_on_kvstore=True),
    "Trainer, experimental": lambda: trainer(lambda p: optim.Adam(p)),
    "Trainer, nn": lambda: trainer(lambda p: nn.Adam(p)),
    "Trainer, nn, with a store": lambda: trainer(lambda p: nn.ASGD(p, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), kvstore="local",
                                                 update_on_kvstore=True),
}  # fmt: skip
every_run = pytest.mark.parametrize("name", RUNS)


@every_way
@every_run
def test_a_copy_goes_on_to_the_same_bits_and_each_by_itself(name: str, way: str) -> None:
    run, reference = RUNS[name](), RUNS[name]()
    for grad in GRADS[:3]:
        run.step(grad)
        reference.step(grad)
    copied = WAYS[way](run)
    before = run.bits()
    for grad in GRADS[3:]:
        copied.step(grad)
        reference.step(grad)
    assert copied.bits() == reference.bits()
    assert run.bits() == before
    for grad in GRADS[3:]:
        run.step(grad)
    assert run.bits() == reference.bits()


@every_way
def test_a_copied_pair_of_optimizer_and_schedule_stays_tied(way: str) -> None:
    for make in (RUNS["StepLR"], RUNS["SequentialLR"], one_rate):
        copied = WAYS[way](make())
        optimizer = getattr(copied.optimizer, "optimizer", copied.optimizer)
        assert copied.schedule.optimizer is optimizer
        copied.schedule.groups[0]["lr"] = 0.25
        rate = optimizer.param_groups[0]["lr"] if hasattr(optimizer, "param_groups") else optimizer.learning_rate
        assert rate == 0.25


@every_way
def test_a_copied_parameter_is_nobodys_and_a_copied_trainers_is_its_own(way: str) -> None:
    run = trainer("sgd", kvstore="local", update_on_kvstore=True)
    run.step(GRADS[0])
    alone = WAYS[way](run.parameter)
    alone.set_data(np.zeros((3, 2), np.float32))
    assert run.parameter.value.any()
    assert not list(alone.keepers)
    copied = WAYS[way](run)
    copied.parameter.set_data(np.zeros((3, 2), np.float32))  # reaches the store of the copied Trainer
    copied.step(np.zeros((3, 2), np.float32))
    assert not copied.parameter.value[0, 0]
    with pytest.raises(ValueError, match="another Trainer's already"):
        mxopt.Trainer([weight()], copied.optimizer.optimizer)


@every_way
def test_groups_are_checked_in_a_copy_too(way: str) -> None:
    group = WAYS[way](optim.SGD([weight()], 0.1).param_groups[0])
    with pytest.raises(ValueError, match="SGD, group 0: lr must not be negative"):
        group["lr"] = -1.0
    group["alpha"] = "mine"
    assert copy.copy(group) == group


@every_way
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 1.0), lambda p: nn.SGD(p, 1.0)], ids=["experimental", "nn"])
def test_a_copied_optimizer_of_tensors_updates_the_copied_tensors(way: str, make: Any) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3)
    tensors, optimizer = WAYS[way](([tensor], make([tensor])))
    optimizer((np.full(3, 0.5, np.float32),))
    assert tensors[0].tolist() == [0.5] * 3
    assert tensor.tolist() == [1.0] * 3


def _step_elsewhere(run: Run, grads: list[np.ndarray]) -> tuple[Run, bytes]:
    for grad in grads:
        run.step(grad)
    return run, run.bits()


def test_runs_go_to_another_process_and_back() -> None:
    names = ("adam", "experimental.Adam-lr=0.1-weight_decay=0.1", "nn.Adam", "StepLR", "Trainer")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name in names:
            run = RUNS[name]()
            run.step(GRADS[0])
            back, there = pool.apply(_step_elsewhere, (run, GRADS[1:3]))
            for grad in GRADS[1:3]:
                run.step(grad)
            assert back.bits() == there == run.bits(), name


def test_a_copied_rule_is_the_rule() -> None:
    from mxopt.rules import adam, layerwise

    for rule in (adam.adam, layerwise.lamb):
        for way in WAYS.values():
            assert way(rule) is rule


def test_row_sparse_arrays_and_curves_are_copied() -> None:
    rows = mxopt.sparse.row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2))
    curve = mxopt.curve(mxopt.lr_scheduler.FactorScheduler(3, 0.5), 8)
    for way in WAYS.values():
        np.testing.assert_array_equal(way(rows).asnumpy(), rows.asnumpy())
        np.testing.assert_array_equal(way(curve).rates, curve.rates)


def test_a_distributed_store_says_why_it_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLC_ROLE", "server")  # so it joins nothing
    monkeypatch.setenv("DMLC_PS_ROOT_URI", "127.0.0.1")
    store = mxopt.kvstore.create("dist_sync")
    for way in WAYS.values():
        with pytest.raises(
            TypeError, match=r"holds connections, .*: call kvstore.create\('dist_sync'\) in each process"
        ):
            way(store)


# How long things live.


@every_run
def test_states_go_when_the_last_reference_goes(name: str) -> None:
    run = RUNS[name]()
    for grad in GRADS[:3]:
        run.step(grad)
    watched = [run.optimizer, run.parameter.value]
    watched += [run.optimizer.optimizer] if isinstance(run.optimizer, mxopt.Updater | mxopt.Trainer) else []
    watched = list(map(weakref.ref, watched))
    gc.collect()
    gc.disable()
    try:
        del run
        assert {ref() for ref in watched} == {None}
    finally:
        gc.enable()


def test_stores_and_their_optimizers_go_when_the_last_reference_goes() -> None:
    for optimizer in (mxopt.create("adam"), optim.Adam([weight()])):
        store = mxopt.kvstore.create("local")
        store.set_optimizer(optimizer)
        store.init("fc.weight", weight().value)
        store.push("fc.weight", GRADS[0])
        watched = weakref.ref(store)
        gc.collect()
        gc.disable()
        try:
            del store
            assert watched() is None
        finally:
            gc.enable()
