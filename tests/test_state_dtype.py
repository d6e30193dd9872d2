"""States in bfloat16 in all families, in stores and Trainers, saved, resumed and converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import array, assert_same, flat
from table import GROUPED, Grouped

import mxopt
from mxopt import nn
from mxopt.document import dump_document, load_document
from mxopt.errors import ArgumentError, ArrayTypeError
from mxopt.experimental import optim

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [(7, 37), (5,), (130, 131)]

every = pytest.mark.parametrize("row", [row for row in GROUPED if row.narrow], ids=str)


def made(row: Grouped, weights: list[np.ndarray], state_dtype: Any = "bfloat16", **more: Any) -> Any:
    params = [mxopt.Parameter(w, f"w{k}") for k, w in enumerate(weights)]
    return row.over(params, state_dtype=state_dtype, **more)


def states_of(optimizer: Any) -> list[np.ndarray]:
    return [x for slot in optimizer.slots for x in slot.arrays.values()]


@pytest.fixture
def start(rng: np.random.Generator) -> list[np.ndarray]:
    return [array(rng, shape, "float32") for shape in SHAPES]


@pytest.fixture
def grads(rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    return [tuple(array(rng, shape, "float32") for shape in SHAPES) for _ in range(5)]


def copies(start: list[np.ndarray]) -> list[np.ndarray]:
    return [w.copy() for w in start]


@every
def test_both_engines_a_store_and_a_trainer_give_the_same_bits(row: Grouped, start: Any, grads: Any) -> None:
    found = []
    for engine in ("llvm", "numpy"):
        weights = copies(start)
        with mxopt.use_engine(engine):
            optimizer = made(row, weights, seed=3)
            for given in grads:
                optimizer(given)
        assert {x.dtype for x in states_of(optimizer)} == {BFLOAT16} or not row.rules[0].states
        found.append([*weights, *states_of(optimizer)])
    store, keys = mxopt.kvstore.create("local"), ["w0", "w1", "w2"]
    store.init(keys, start)
    store.set_optimizer(made(row, copies(start), seed=3))
    outs = copies(start)
    for given in grads:
        store.push(keys, list(given))
    store.pull(keys, outs)
    found.append([*outs, *(x for key in keys for x in flat(store._updater.states[key]) if x.ndim)])  # type: ignore[union-attr]
    trained = copies(start)
    params = [mxopt.Parameter(w, f"w{k}") for k, w in enumerate(trained)]
    trainer = mxopt.Trainer(params, row.over(params, state_dtype="bfloat16", seed=3))
    for given in grads:
        for param, grad in zip(params, given, strict=True):
            param.grad = grad
        trainer.step(1)
    assert_same(trained, found[0][:3], "Trainer")
    for other in found[1:]:
        assert_same(other, found[0])


@every
def test_a_resumed_run_has_the_bits_of_one_that_went_on(row: Grouped, start: Any, grads: Any) -> None:
    weights, resumed = copies(start), copies(start)
    optimizer, before = made(row, weights, seed=3), made(row, resumed, seed=3)
    for given in grads:
        optimizer(given)
    for given in grads[:2]:
        before(given)
    after = made(row, resumed)
    after.load_state_dict(load_document(dump_document(before.state_dict())))
    for given in grads[2:]:
        after(given)
    assert_same([*resumed, *states_of(after)], [*weights, *states_of(optimizer)])


@every
def test_states_are_converted_where_they_are_loaded(row: Grouped, start: Any, grads: Any) -> None:
    wide, narrow = made(row, copies(start), None), made(row, copies(start))
    for given in grads[:2]:
        wide(given)
    narrow.load_state_dict(wide.state_dict())
    assert_same(states_of(narrow), [x.astype(BFLOAT16) for x in states_of(wide)])
    narrow(grads[2])
    again = made(row, copies(start), None)
    again.load_state_dict(narrow.state_dict())
    assert_same(states_of(again), [x.astype(np.float32) for x in states_of(narrow)])
    again(grads[3])


@pytest.mark.parametrize("row", [row for row in GROUPED if not (row.narrow or row.alone)], ids=str)
def test_states_that_need_all_their_bits(row: Grouped, start: Any) -> None:
    with pytest.raises(ArgumentError, match="can't be kept in bfloat16: "):
        row.over(start, state_dtype="bfloat16")


def test_an_option_of_a_group_that_is_changed_later_is_looked_at(start: Any, grads: Any) -> None:
    optimizer = optim.RMSprop(start, state_dtype="bfloat16")
    optimizer.param_groups[0]["centered"] = True
    before = copies(start)
    with pytest.raises(ArgumentError, match=r"RMSprop: its states .* can't be kept in bfloat16"):
        optimizer(grads[0])
    assert_same(start, before)


@every
def test_float64_parameters_are_refused(row: Grouped) -> None:
    weight = np.ones(3)
    optimizer = made(row, [weight])
    with pytest.raises(ArrayTypeError, match=r"w0.*a float64 weight can't have states of bfloat16"):
        optimizer((np.ones(3),))
    assert (weight == 1).all()


@pytest.mark.parametrize("make", [optim.SGD, nn.Momentum])
def test_bfloat16_parameters_without_a_master_copy(make: Any) -> None:
    with pytest.warns(UserWarning, match="state_dtype='bfloat16' rounds stochastically"):
        make([np.ones(3, BFLOAT16)], 5e-5, 0.5)
    weight = np.ones(10_000, BFLOAT16)
    optimizer = make([weight], 5e-5, 0.5, state_dtype="bfloat16")
    for _ in range(100):
        optimizer((np.ones(10_000, BFLOAT16),))
    assert abs(weight.astype(np.float64).mean() - 0.99) < 5e-4


# What `create` makes.


@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("name", ["adam", "sgd", "lamb"])
def test_updaters_resume_to_the_last_bit(name: str, with_optimizer: bool, start: Any, grads: Any) -> None:
    def fresh(**more: Any) -> Any:
        momentum = {"momentum": 0.9} if name == "sgd" else {}
        return mxopt.get_updater(mxopt.create(name, learning_rate=0.1, **momentum, **more))

    def step(updater: Any, weights: list[np.ndarray], given: Any) -> None:
        updater([0, 1, 2], list(given), weights)

    weights, resumed = copies(start), copies(start)
    whole, before = (fresh(state_dtype="bfloat16", seed=8) for _ in range(2))
    for given in grads:
        step(whole, weights, given)
    for given in grads[:2]:
        step(before, resumed, given)
    after = fresh() if with_optimizer else fresh(state_dtype="bfloat16")
    after.set_states(before.get_states(dump_optimizer=with_optimizer))
    for given in grads[2:]:
        step(after, resumed, given)
    assert_same(resumed, weights)
    assert after.optimizer.state_dtype == "bfloat16"


def test_updaters_convert_what_they_load(start: Any, grads: Any) -> None:
    def trained(state_dtype: str | None, saved: bytes | None = None) -> Any:
        updater = mxopt.get_updater(mxopt.create("adam", state_dtype=state_dtype))  # type: ignore[arg-type]
        if saved is not None:
            updater.set_states(saved)
        updater([0, 1, 2], list(grads[0]), copies(start))
        return updater

    def dtypes(updater: Any) -> set[str]:
        return {str(x.dtype) for state in updater.states.values() for x in state}

    wide, narrow = trained(None), trained("bfloat16")
    assert dtypes(trained("bfloat16", wide.get_states())) == {"bfloat16"}
    assert dtypes(trained(None, narrow.get_states())) == {"float32"}
    assert dtypes(trained("bfloat16", wide.get_states(dump_optimizer=True))) == {"bfloat16"}
    assert dtypes(trained("float32", narrow.get_states(dump_optimizer=True))) == {"float32"}
    assert dtypes(trained(None, narrow.get_states(dump_optimizer=True))) == {"bfloat16"}


@pytest.mark.parametrize("update_on_kvstore", [False, True])
def test_trainers_save_and_go_on(update_on_kvstore: bool, start: Any, grads: Any, tmp_path: Path) -> None:
    def trainer(weights: list[np.ndarray]) -> mxopt.Trainer:
        params = [mxopt.Parameter(w, f"w{k}") for k, w in enumerate(weights)]
        options = {"state_dtype": "bfloat16", "seed": 2}
        store = mxopt.kvstore.create("local") if update_on_kvstore else None
        return mxopt.Trainer(params, "adam", options, kvstore=store, update_on_kvstore=update_on_kvstore)

    def run(made: mxopt.Trainer, steps: Any) -> list[np.ndarray]:
        params = made._params
        for given in steps:
            for param, grad in zip(params, given, strict=True):
                param.grad = grad
            made.step(4)
        return [p.value for p in params]

    whole = run(trainer(copies(start)), grads)
    first = trainer(copies(start))
    middle = run(first, grads[:2])
    first.save_states(str(tmp_path / "states"))
    second = trainer(copies(middle))
    second.load_states(str(tmp_path / "states"))
    assert_same(run(second, grads[2:]), whole)


def test_a_trainer_keys_named_parameters_by_position(start: Any, grads: Any) -> None:
    trained, weights = copies(start), copies(start)
    params = [mxopt.Parameter(w, f"w{k}") for k, w in enumerate(trained)]
    trainer = mxopt.Trainer(params, "adam", {"state_dtype": "bfloat16", "seed": 2})
    updater = mxopt.get_updater(mxopt.create("adam", state_dtype="bfloat16", seed=2))
    for given in grads:
        for param, grad in zip(params, given, strict=True):
            param.grad = grad
        trainer.step(1)
        updater([0, 1, 2], list(given), weights)
    assert_same(trained, weights)


def test_own_optimizers_without_a_rule_are_told(start: Any) -> None:
    class Plain(optim.Optimizer):
        """Makes its steps by itself."""

        def __init__(self, params: Any, **more: Any) -> None:
            super().__init__(params, {"lr": 0.1}, **more)

        def construct(self, *gradients: Any) -> None:
            pass

    Plain(start)
    with pytest.raises(ArgumentError, match="Plain: state_dtype is for optimizers that are a rule"):
        Plain(start, state_dtype="bfloat16")

    class Own(nn.Optimizer):
        """Makes its steps by itself."""

        def construct(self, *gradients: Any) -> None:
            pass

    Own(0.1, start)
    with pytest.raises(ArgumentError, match="Own: state_dtype is for optimizers that are a rule"):
        Own(0.1, start, state_dtype="bfloat16")
