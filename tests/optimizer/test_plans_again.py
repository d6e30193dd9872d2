"""A plan that is used again does what a new one would do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from bitwise import array, assert_same, laid_out
from table import ROWS, Row

import mxopt
from mxopt.engine.steps import Steps
from mxopt.sparse import row_sparse_array

MOMENTA = [r for r in ROWS if r.options.get("momentum")]
OTHERS = [Row("adam"), Row("ftrl"), Row("lamb"), Row("rmsprop", centered=True), Row("groupadagrad")]


@pytest.mark.parametrize("row", [*MOMENTA, *OTHERS], ids=str)
def test_a_plan_used_again_is_like_a_new_one(row: Row, rng: np.random.Generator) -> None:
    """The numpy engine keeps no plans; the llvm engine follows it through any sequence of arrays
    and settings."""
    numpy, llvm = row.make(), row.make()
    lazy = row.takes_lazy_update

    def new(kind: int) -> list[Any]:
        shape, dtype, layout = [
            ((40,), "float32", "C"), ((40,), "float64", "C"), ((8, 5), "float32", "C"), ((8, 5), "float32", "F"),
            ((8, 5), "float16", "C"), ((8, 5), "float32", "C"),
        ][kind]  # fmt: skip
        weight = laid_out(array(rng, shape, dtype), layout)
        return [[w := laid_out(weight, layout), o.create_state(0, w)] for o in (numpy, llvm)]

    tensors = [new(k % 6) for k in range(9)]
    for step in range(120):
        k = int(rng.integers(len(tensors)))
        if rng.random() < 0.05:
            tensors[k] = new(k % 6)
        if rng.random() < 0.3:
            name, value = [
                ("lr", 0.5), ("lr", 0.01), ("wd", 0.25), ("rescale_grad", 0.5), ("clip_gradient", 0.1),
                ("clip_gradient", None), ("momentum", 0.0), ("momentum", 0.75), ("epsilon", 1e-3),
                ("lazy_update", True), ("lazy_update", False),
            ][int(rng.integers(10))]  # fmt: skip
            if hasattr(numpy, name) and (name != "lazy_update" or lazy):
                for optimizer in (numpy, llvm):
                    setattr(optimizer, name, value)
        weight = tensors[k][0][0]
        grad: Any = array(rng, weight.shape, "float16" if rng.random() < 0.2 else weight.dtype.name)
        if rng.random() < 0.4:
            rows = np.flatnonzero(rng.random(len(weight)) < 0.5)
            grad = row_sparse_array((grad[rows], rows), shape=weight.shape)
        engine: Any
        for engine, optimizer, (weight, state) in zip(("numpy", "llvm"), (numpy, llvm), tensors[k], strict=True):
            with mxopt.use_engine(engine):
                if step % 3:
                    optimizer.update(0, weight, grad, state)
                else:
                    optimizer.update([0], [weight], [grad], [state])
        assert_same(*tensors[k], f"step {step}, tensor {k}")  # type: ignore[call-arg]


def test_a_momentum_set_to_zero_is_a_number_like_any_other() -> None:
    for row in MOMENTA:
        updater, tiny = mxopt.get_updater(row.make()), mxopt.get_updater(row.make())
        weight, twin = np.ones(3, np.float32), np.ones(3, np.float32)
        for u, w in ((updater, weight), (tiny, twin)):
            u(0, np.ones(3, np.float32), w)
            u.optimizer.momentum = 0.0 if u is updater else 1e-45  # type: ignore[attr-defined]
            u(0, np.ones(3, np.float32), w)
        assert_same([weight, updater.states[0]], [twin, tiny.states[0]], str(row))
        other = mxopt.get_updater(mxopt.create("sgd"))
        other.set_states(updater.get_states(dump_optimizer=True))
        other(0, np.ones(3, np.float32), weight)


@pytest.mark.parametrize("name", ["ftml", "lamb", "lans"])
@pytest.mark.parametrize("first", ["single", "list"])
def test_a_prepared_update_takes_the_corrections_of_its_own_precision(name: str, first: str) -> None:
    """Single tensors and lists are prepared apart: what one leaves behind is not what the other
    relies on."""
    optimizer, fresh = mxopt.create(name), mxopt.create(name)
    arrays = {k: [np.linspace(-1, 1, 99, dtype=k), np.linspace(0.1, 9, 99, dtype=k)] for k in ("float32", "float64")}
    states = {k: [o.create_state(0, arrays[k][0]) for o in (optimizer, fresh)] for k in arrays}
    twins = {k: weight.copy() for k, (weight, _) in arrays.items()}
    forms = ["single", "list"] if first == "single" else ["list", "single"]
    for _ in range(9):
        for kind, form in zip(("float32", "float64"), forms, strict=True):
            (weight, grad), (state, other) = arrays[kind], states[kind]
            if form == "single":
                optimizer.update(0, weight, grad, state)
            else:
                optimizer.update([0], [weight], [grad], [state])
            fresh = copy.copy(fresh)  # which has no plans yet
            fresh.update(0, twins[kind], grad, other)
        assert_same([arrays[k][0] for k in arrays], [twins[k] for k in arrays], name)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The keys of the lists that are prepared from here on."""
    keys: list[object] = []
    make = Steps.make

    def noted(self: Steps, key: Any, *arguments: Any) -> Any:
        keys.append(key)
        return make(self, key, *arguments)

    monkeypatch.setattr(Steps, "make", noted)
    return keys


def test_many_lists_that_share_no_parameter_all_stay_prepared(made: list[object]) -> None:
    """As a server has them, which updates the keys of a message together."""
    optimizer = mxopt.create("adam")
    lists = []
    for number in range(30):
        indices = [f"{number}.{k}" for k in range(2 + number % 4)]
        weights, grads = ([np.ones(3, np.float32) for _ in indices] for _ in range(2))
        lists.append((indices, weights, grads, list(map(optimizer.create_state, indices, weights))))
    for _ in range(2):
        for arguments in lists:
            optimizer.update(*arguments)
    made.clear()
    for arguments in lists:
        optimizer.update(*arguments)
    assert not made


def test_of_lists_of_the_same_parameters_only_the_last_stay_prepared(made: list[object]) -> None:
    optimizer = mxopt.create("adam")
    weights, grads = ([np.ones(3, np.float32) for _ in range(20)] for _ in range(2))
    states = list(map(optimizer.create_state, range(20), weights))
    for first in (*range(10), 9, 0):
        indices = list(range(first, first + 11))
        optimizer.update(indices, *([each[i] for i in indices] for each in (weights, grads, states)))
    assert made == [tuple(range(first, first + 11)) for first in (*range(10), 0)]
