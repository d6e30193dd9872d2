"""What a subclass overrides is called: by updaters, for one tensor and for lists, by stores and by
the Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree, assert_same
from table import CROSSED, ROWS, Row, crossed_id

import mxopt
from mxopt.optimizer import SGD, Adam, Optimizer, RuleOptimizer
from mxopt.sparse import row_sparse_array

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")
METHODS = [
    "update", "update_multi_precision", "create_state", "create_state_multi_precision", "_update_count",
    "_get_lr", "_get_lrs", "_get_wd", "_get_wds", "scalars", "new_state",
]  # fmt: skip
SHAPE = (5, 3)


def calling_super(base: type, names: Sequence[str], calls: list[str]) -> type:
    """A subclass of `base` whose methods `names` only note the call and hand it on."""

    def method(name: str) -> Any:
        def handed_on(self: Any, *args: Any) -> Any:
            calls.append(name)
            if name in ("update", "_update_count") or (name == "update_multi_precision" and not base.aggregates):  # type: ignore[attr-defined]
                assert not isinstance(args[0], list | tuple), "a list, which it has not asked for"
            return getattr(super(klass, self), name)(*args)

        return handed_on

    klass = type(base.__name__, (base,), {name: method(name) for name in names})
    return klass


def made(row: Row, klass: type, **more: Any) -> Any:
    return klass(**{**row.options, **more})


def runs(row: Row, klass: type, dtype: str, master: bool) -> list[Run]:
    weights = [array(np.random.default_rng(0), SHAPE, dtype) for _ in range(3)]
    given = [(row.make(multi_precision=master), False)]
    given += [(made(row, klass, multi_precision=master), as_list) for as_list in (False, True)]
    return [Run(optimizer, [w.copy() for w in weights], as_list=as_list) for optimizer, as_list in given]


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_an_update_that_only_calls_super_gives_the_same_bits(row: Row, dtype: str, master: bool) -> None:
    calls: list[str] = []
    rng = np.random.default_rng(1)
    klass = calling_super(Optimizer.opt_registry[row.name], ["update"], calls)
    assert_runs_agree(runs(row, klass, dtype, master), lambda _: [array(rng, SHAPE, dtype) for _ in range(3)], 4)
    assert calls == ["update"] * 4 * 3 * 2  # as often as there were tensors, in both runs


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_method_of_every_optimizer_is_called(row: Row, name: str) -> None:
    base = Optimizer.opt_registry[row.name]
    for as_list in (False, True):
        calls: list[str] = []
        optimizer = made(row, calling_super(base, [name], calls))
        run = Run(optimizer, [np.ones(SHAPE, np.float32) for _ in range(3)], as_list=as_list)
        for _ in range(2):
            run.step([np.full(SHAPE, 0.5, np.float32) for _ in range(3)])
        makes_none = name == "new_state" and (row.name in ("test", "sgld") or not optimizer.rule.states)
        assert calls or makes_none


@pytest.mark.parametrize("name", ["adam", "sgd", "lbsgd"])
def test_row_sparse_gradients_reach_an_update_too(name: str) -> None:
    row, calls = Row(name, momentum=0.5) if name != "adam" else Row(name), list[str]()
    klass = calling_super(Optimizer.opt_registry[name], ["update"], calls)
    for dtype, master in (("float32", False), ("float16", True)):
        grad = row_sparse_array((np.ones((2, 3), dtype), [4, 1]), shape=SHAPE)
        assert_runs_agree(runs(row, klass, dtype, master), lambda _, grad=grad: [grad] * 3)  # type: ignore[misc]
    assert calls


class ByIndex(Adam):
    """Everything that may depend on the index does."""

    def _get_lr(self, index: Any) -> Any:
        return super()._get_lr(index) * (1 + index)

    def _get_wd(self, index: Any) -> Any:
        return 0.125 * index

    def scalars(self, index: Any, lr: float, t: int) -> tuple[float, ...]:
        return super().scalars(index, lr * (2 if index == 1 else 1), t)


class ByList(Adam):
    """The same, by the methods that take lists."""

    def _get_lrs(self, indices: Sequence[Any]) -> list[float]:
        return [lr * (1 + i) * (2 if i == 1 else 1) for i, lr in zip(indices, super()._get_lrs(indices), strict=True)]

    def _get_wds(self, indices: Sequence[Any]) -> list[float]:
        return [0.125 * index for index in indices]


@pytest.mark.parametrize("klass", [ByIndex, ByList])
@pytest.mark.parametrize("as_list", [False, True])
def test_rates_and_scalars_of_ones_own_are_each_parameters(klass: type, as_list: bool) -> None:
    weights = [np.ones(4, np.float32) for _ in range(3)]
    run = Run(klass(learning_rate=0.25), [w.copy() for w in weights], as_list=as_list)
    grads = [np.full(4, 0.5 + k, np.float32) for k in range(3)]
    run.step(grads)
    for k, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        rate = 0.25 * (1 + k) * (2 if k == 1 else 1)
        mxopt.get_updater(mxopt.create("adam", learning_rate=rate, wd=0.125 * k))(0, grad, weight)
    assert_same(run.weights, weights)


def test_both_methods_of_a_rate_may_call_super() -> None:
    class Both(SGD):
        def _get_lr(self, index: Any) -> float:
            return 2 * super()._get_lr(index)

        def _get_lrs(self, indices: Sequence[Any]) -> list[float]:
            return [lr * 3 for lr in super()._get_lrs(indices)]

    for as_list in (False, True):
        run = Run(Both(learning_rate=0.125), [np.zeros(1, np.float32) for _ in range(2)], as_list=as_list)
        run.step([np.ones(1, np.float32)] * 2)
        assert [float(w[0]) for w in run.weights] == [-0.75, -0.75]


def test_an_update_that_asks_for_lists_gets_them() -> None:
    class Lists(SGD):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.aggregate_num = 2
            self.sizes: list[int] = []

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            self.sizes.append(len(index))
            super().update(index, weight, grad, state)

    run = Run(Lists(learning_rate=1.0), [np.zeros(1, np.float32) for _ in range(3)], as_list=True)
    run.step([np.ones(1, np.float32)] * 3)
    assert run.updater.optimizer.sizes == [2, 1]  # type: ignore[attr-defined]
    assert [float(w[0]) for w in run.weights] == [-1.0] * 3


@pytest.mark.parametrize("method", ["update", "update_multi_precision"])
@pytest.mark.parametrize("base", [Optimizer, SGD, Adam])
def test_an_update_that_asks_for_lists_gets_them_for_one_tensor_too(base: type, method: str) -> None:
    """As in MXNet, where such a method need not be able to take a single tensor."""

    def each(self: Any, indices: Any, weights: Any, grads: Any, states: Any) -> None:
        self._update_count(indices)
        for index, weight, grad, _ in zip(indices, weights, grads, states, strict=True):
            weight -= self._get_lr(index) * grad

    own = type("Own", (base,), {method: each})(learning_rate=0.5)
    own.aggregate_num = 2
    weights = [np.ones(2, np.float32) for _ in range(3)]
    updater = mxopt.get_updater(own)
    updater(1, np.ones(2, np.float32), weights[1])
    updater([0, 1, 2], [np.ones(2, np.float32)] * 3, weights)
    assert [w[0] for w in weights] == [0.5, 0.0, 0.5]
    assert own.count(1) == 2


def test_a_function_put_in_a_methods_place_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Adam, "update", lambda self, index, weight, grad, state: weight.fill(7))
    weight = np.zeros(2, np.float32)
    mxopt.get_updater(mxopt.create("adam"))(0, np.ones(2, np.float32), weight)
    assert weight.tolist() == [7, 7]


def test_a_method_put_on_the_object_is_refused() -> None:
    for name in ("update", "update_multi_precision", "_get_lr", "scalars"):
        adam = mxopt.create("adam")
        setattr(adam, name, lambda *_: None)
        with pytest.raises(ValueError, match=rf"Adam: {name} was put on the object, .* class OwnAdam"):
            mxopt.get_updater(adam)


class Masked(SGD):
    """Moves the first element only."""

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        super().update(index, weight, grad * np.array([1, 0], grad.dtype), state)


@pytest.mark.parametrize("update_on_kvstore", [True, False])
def test_the_trainer_and_its_store_call_it(update_on_kvstore: bool) -> None:
    parameters = [mxopt.Parameter(np.ones(2, np.float32), name=name) for name in "ab"]
    trainer = mxopt.Trainer(
        parameters,
        Masked(learning_rate=0.5),
        kvstore=mxopt.kvstore.create("local"),
        update_on_kvstore=update_on_kvstore,
    )
    for parameter in parameters:
        parameter.grad = np.ones(2, np.float32)
    trainer.step(1)
    assert [p.value.tolist() for p in parameters] == [[0.5, 1.0]] * 2


def test_a_store_calls_an_updater_of_ones_own_key_by_key() -> None:
    class Doubling(mxopt.Updater):
        def __call__(self, index: Any, grad: Any, weight: Any) -> None:
            assert isinstance(index, str)
            weight += 2 * grad

    store = mxopt.kvstore.create("local")
    store.init(["a", "b"], [np.zeros(1, np.float32)] * 2)
    store._set_updater(Doubling(mxopt.create("sgd")))
    store.push(["a", "b"], [np.ones(1, np.float32)] * 2)
    out = np.zeros(1, np.float32)
    store.pull("b", out)
    assert out[0] == 2


def test_servers_keep_arrays_whole_for_what_they_cannot_see_through() -> None:
    class Lion(RuleOptimizer):
        rule = Adam.rule

    assert mxopt.create("adam").elementwise
    assert Lion().elementwise
    assert ByIndex().elementwise
    for name in ("update", "update_multi_precision", "create_state", "new_state"):
        assert not calling_super(Adam, [name], [])().elementwise
