"""States are taken by the optimizer and for the parameters that they are of, and by no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwise import assert_same, copied
from table import ROWS, Row

import mxopt
from mxopt import kvstore, nn
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.lr_scheduler import FactorScheduler, PolyScheduler
from mxopt.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")


def weight(shape: Any = (4, 3), dtype: str = "float32") -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype)


def used(optimizer: mxopt.Optimizer, *shapes: Any, dtype: str = "float32") -> mxopt.Updater:
    """An updater that has made two updates of weights of these shapes."""
    updater = mxopt.get_updater(optimizer)
    for _ in range(2):
        for index, shape in enumerate(shapes or [(4, 3)]):
            updater(index, weight(shape, dtype), weight(shape, dtype))
    return updater


# Whose optimizer's.


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_optimizers_states_are_taken_by_no_other(row: Row) -> None:
    saved = used(row.make()).get_states()
    for other in ROWS:
        updater = used(other.make())
        before = updater.get_states(dump_optimizer=True)
        if other.make().state_kind() == row.make().state_kind():
            updater.set_states(saved)
        elif row.name == other.name and row.make().get_counts().get("has_velocity"):
            continue  # velocities of the same optimizer, below
        else:
            with pytest.raises(StatesError, match=rf"are those of \w+.*, this is {type(updater.optimizer).__name__}"):
                updater.set_states(saved)
            assert updater.get_states(dump_optimizer=True) == before


def test_what_shapes_a_state_is_compared_too() -> None:
    for name, given, other in (
        ("sgd", {}, {"momentum": 0.9}),
        ("rmsprop", {}, {"centered": True}),
        ("rmsprop", {"centered": True}, {}),
        ("lbsgd", {"batch_scale": 2}, {}),
        ("lbsgd", {}, {"batch_scale": 2}),
    ):
        with pytest.raises(StatesError, match=r"with (rule|sums gradients) "):
            used(mxopt.create(name, **other)).set_states(used(mxopt.create(name, **given)).get_states())
    for dtype, masters in (("float16", (True, False)), ("float16", (False, True))):
        saved, mine = (used(mxopt.create("adam", multi_precision=m), dtype=dtype) for m in masters)
        with pytest.raises(StatesError, match="multi_precision"):
            mine.set_states(saved.get_states())
    used(mxopt.create("adam")).set_states(used(mxopt.create("adam", multi_precision=True)).get_states())  # of float32


def test_velocities_stay_where_the_momentum_is_0_by_now() -> None:
    saved = used(mxopt.create("sgd", momentum=0.5))
    fresh = mxopt.get_updater(mxopt.create("sgd"))
    fresh.set_states(saved.get_states())
    saved.optimizer.momentum = 0.0  # type: ignore[attr-defined]
    theirs, ours = weight(), weight()
    saved(0, weight(), theirs)
    fresh(0, weight(), ours)
    assert_same([ours, fresh.states[0]], [theirs, saved.states[0]])


# Whose parameters', where an updater meets them first.


@pytest.mark.parametrize("with_optimizer", [True, False])
@pytest.mark.parametrize(("shape", "dtype"), [((3, 4), "float32"), ((12,), "float32"), ((4, 3), "float64")])
def test_an_updater_refuses_at_the_first_use(shape: Any, dtype: str, with_optimizer: bool) -> None:
    for name in ("adam", "sgd"):  # SGD has no state by which it could be seen
        updater = mxopt.get_updater(mxopt.create(name))
        updater.set_states(used(mxopt.create(name), (5,), (4, 3)).get_states(dump_optimizer=with_optimizer))
        weights = [weight((5,)), weight(shape, dtype)]
        before, counts = copied(weights), updater.optimizer.get_counts()["devices"][0].copy()
        for given in ((1, weights[1], weights[1]), ([0, 1], weights, weights)):
            with pytest.raises(StatesError, match=r"state of parameter 1 is another's: (shape|dtype)"):
                updater(*given)
            assert_same(weights, before)
            assert updater.optimizer.get_counts()["devices"][0] == counts
        updater(1, weight(), weight())


def test_names_are_compared_where_both_have_them() -> None:
    saved = used(mxopt.create("adam", param_idx2name={0: "a"}), (4, 3))
    for names, fits in (({0: "a"}, True), ({}, True), ({1: "b"}, True), ({0: "b"}, False)):
        updater = mxopt.get_updater(mxopt.create("adam", param_idx2name=names))
        if fits:
            updater.set_states(saved.get_states())
        else:
            with pytest.raises(StatesError, match="parameter 'a': name 'a' in the states, 'b' here"):
                updater.set_states(saved.get_states())


# Whose parameters', where they are known.

STORES: list[Any] = [None, "store", "sums"]


def trainer(store: Any, params: list[mxopt.Parameter], optimizer: Any = "adam", **options: Any) -> Trainer:
    if store is not None:
        options["update_on_kvstore"] = store == "store"
        store = kvstore.create("local")
    if isinstance(optimizer, type):
        optimizer = optimizer(params, lr=0.125)
    elif isinstance(optimizer, str):
        optimizer = mxopt.create(optimizer, learning_rate=0.125)
    return Trainer(params, optimizer, kvstore=store, **options)


def params(*names: str | None, shapes: dict[Any, Any] | None = None, dtype: str = "float32") -> list[mxopt.Parameter]:
    """Parameters whose values and gradients follow from their names."""
    found: list[Any] = []
    for k, name in enumerate(names):
        shape = (shapes or {}).get(name if name is not None else k, (2, 3))
        param = mxopt.Parameter(weight(shape, dtype) * (1 + len(found) if name is None else ord(name[0])), name=name)
        param.grad = np.full(shape, (k if name is None else ord(name[0])) / 64, dtype)
        found.append(param)
    return found


def stepped(made: Trainer, steps: int = 2) -> Trainer:
    for k in range(steps):
        for p in made.parameters:
            p.grad = p.grad + np.asarray(k, p.dtype) / 4
        made.step(1)
    return made


@pytest.mark.parametrize("optimizer", ["adam", "lars", "nadam", optim.Adam])
@pytest.mark.parametrize("store", STORES)
def test_a_trainers_states_follow_the_names(store: Any, optimizer: Any, tmp_path: Path) -> None:
    first = stepped(trainer(store, params("a", "b", "c", shapes={"b": (5,)}), optimizer))
    first.save_states(str(tmp_path / "states"))
    again = params("c", "a", "b", shapes={"b": (5,)})
    for p in again:
        mine = next(q for q in first.parameters if q.name == p.name)
        p.set_data(mine.value)
        p.grad = mine.grad.copy()
    resumed = trainer(store, again, optimizer)
    resumed.load_states(str(tmp_path / "states"))
    stepped(first), stepped(resumed)
    order = {p.name: p.value for p in first.parameters}
    assert_same([p.value for p in resumed.parameters], [order[p.name] for p in resumed.parameters])


@pytest.mark.parametrize("optimizer", ["adam", "sgd", optim.Adam, optim.SGD])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("saved", "here", "said"),
    [
        (params("a", "b"), params("a", "b", "c"), "'c' are new here"),
        (params("a", "b", "c"), params("a", "b"), "'c' of theirs are not here"),
        (params("a", "b"), params("a", "c"), "'b' of theirs are not here; 'c' are new here"),
        (params("a", "b"), params("a", "b", shapes={"b": (3, 2)}), r"'b': shape \(2, 3\) in the states, \(3, 2\) here"),
        (params("a", "b"), params("a", "b", dtype="float64"), "'a': dtype 'float32' in the states, 'float64' here"),
    ],
)
def test_parameters_that_differ_are_told_apart(
    saved: Any, here: Any, said: str, store: Any, optimizer: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "states")
    stepped(trainer(store, saved, optimizer)).save_states(path)
    made = stepped(trainer(store, here, optimizer))
    made.save_states(str(tmp_path / "before"))
    held, values = made.optimizer, copied([p.value for p in made.parameters])
    with pytest.raises(StatesError, match=said):
        made.load_states(path)
    made.save_states(str(tmp_path / "after"))
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
    assert made.optimizer is held
    assert_same([p.value for p in made.parameters], values)
    stepped(made)


def test_unnamed_parameters_go_by_their_order(tmp_path: Path) -> None:
    path = str(tmp_path / "states")
    stepped(trainer(None, params(None, None, shapes={0: (5,)}))).save_states(path)
    trainer(None, params(None, None, shapes={0: (5,)})).load_states(path)
    trainer(None, params("a", "b", shapes={"a": (5,)})).load_states(path)
    with pytest.raises(StatesError, match="the same shapes in another order"):
        trainer(None, params(None, None, shapes={1: (5,)})).load_states(path)
    for count in (1, 3):
        with pytest.raises(StatesError, match=f"for 2 parameters, here are {count}"):
            trainer(None, params(*[None] * count, shapes={0: (5,)})).load_states(path)


def test_a_store_compares_with_its_values(tmp_path: Path) -> None:
    def store(shape: Any, name: str = "adam") -> Any:
        made = kvstore.create("local")
        made.init("w", weight(shape))
        made.set_optimizer(mxopt.create(name))
        made.push("w", weight(shape))
        return made

    path = str(tmp_path / "states")
    store((4, 3)).save_optimizer_states(path)
    store((4, 3)).load_optimizer_states(path)
    for other, said in ((store((3, 4)), "shape"), (store((4, 3), "adagrad"), "those of Adam .* this is AdaGrad")):
        with pytest.raises(StatesError, match=said):
            other.load_optimizer_states(path)


# Who holds the optimizer goes on holding the one that is used.


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_updaters_optimizer_takes_the_options_over(row: Row) -> None:
    saved = used(row.make(lr_scheduler=FactorScheduler(2, 0.5, base_lr=0.5), wd=0.0))
    schedule = FactorScheduler(9, base_lr=0.25)
    optimizer = row.make(lr_scheduler=schedule, wd=0.0)
    updater = mxopt.get_updater(optimizer)
    updater.set_states(saved.get_states(dump_optimizer=True))
    assert updater.optimizer is optimizer
    assert optimizer.lr_scheduler is schedule
    assert (schedule.step, schedule.factor, optimizer.num_update) == (2, 0.5, saved.optimizer.num_update)
    theirs, ours = weight(), weight()
    saved(0, weight(), theirs)
    updater(0, weight(), ours)
    assert_same([ours, updater.states[0]], [theirs, saved.states[0]])
    assert updater.get_states(dump_optimizer=True) == saved.get_states(dump_optimizer=True)


def test_an_updater_takes_an_optimizer_or_schedule_of_another_class() -> None:
    saved = used(mxopt.create("adam", learning_rate=0.5, lr_scheduler=PolyScheduler(9, base_lr=0.5)))
    updater = used(mxopt.create("sgd"))
    updater.set_states(saved.get_states(dump_optimizer=True))
    assert type(updater.optimizer) is mxopt.optimizer.Adam
    optimizer = mxopt.create("adam", learning_rate=0.01, lr_scheduler=FactorScheduler(9))
    updater = mxopt.get_updater(optimizer)
    updater.set_states(saved.get_states(dump_optimizer=True))
    assert updater.optimizer is optimizer
    assert type(optimizer.lr_scheduler) is PolyScheduler


def test_a_schedule_defined_again_stays_the_callers() -> None:
    """As by a notebook cell that is run again, after which the schedule of before is still held."""

    def define() -> Any:
        class Own(FactorScheduler):
            pass

        return Own

    schedule = define()(9, base_lr=0.5)
    updater = used(mxopt.create("adam", learning_rate=0.5, lr_scheduler=schedule))
    define()
    updater.set_states(updater.get_states(dump_optimizer=True))
    assert updater.optimizer.lr_scheduler is schedule


@pytest.mark.parametrize("store", STORES)
def test_a_trainers_optimizer_stays_the_callers(store: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "states")
    stepped(trainer(store, params("a"), mxopt.create("sgd", learning_rate=0.5, momentum=0.5))).save_states(path)
    optimizer = mxopt.create("sgd", learning_rate=0.25)
    made = trainer(store, params("a"), optimizer)
    made.load_states(path)
    assert made.optimizer is optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.num_update) == (0.5, 0.5, 2)
    assert optimizer.param_dict == {0: made.parameters[0]}
    optimizer.set_learning_rate(0.0)
    optimizer.momentum = 0.0
    before = made.parameters[0].value.copy()
    stepped(made)
    assert np.array_equal(made.parameters[0].value, before)
    for other in ("adam", optim.SGD):
        kept = trainer(store, params("a"), other)
        with pytest.raises(
            StatesError, match=r"those of SGD( of mxopt.optimizer, this is SGD of mxopt.exp|, this is Adam)"
        ):
            kept.load_states(path)
        stepped(kept)


def test_an_experimental_schedule_goes_on_with_the_optimizer_that_is_used(tmp_path: Path) -> None:
    path = str(tmp_path / "states")
    mine = params("a")
    optimizer = optim.SGD(mine, lr=0.5)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    made = trainer("store", mine, optimizer)
    stepped(made).save_states(path)
    schedule.step()
    made.load_states(path)
    assert made.optimizer is optimizer
    assert optimizer.param_groups[0]["lr"] == 0.5
    schedule.step()
    assert made.learning_rate == 0.25


# State dicts of the other families.


@pytest.mark.parametrize("family", [optim, nn])
def test_state_dicts_are_their_optimizers_and_parameters(family: Any) -> None:
    def made(name: str, *names: str, **options: Any) -> Any:
        optimizer = getattr(family, name)(params(*names), **options)
        optimizer(tuple(p.grad for p in optimizer.parameters))
        return optimizer

    saved = made("Adam", "a", "b").state_dict()
    made("Adam", "b", "a").load_state_dict(saved)
    for other, said in (
        (made("AdamW" if family is optim else "AdamWeightDecay", "a", "b"), "Adam"),
        (made("Adam", "a", "b", "c"), "'c'"),
        (made("Adam", "a"), "'b'"),
        (made("Adam", "a", "c"), "'c'.*'b'|'b'.*'c'"),
    ):
        before = other.state_dict()
        with pytest.raises(StatesError, match=said):
            other.load_state_dict(saved)
        assert str(other.state_dict()) == str(before)
