"""Updaters that update by the sum of several gradients: `Updater(optimizer, accumulate=n)`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import array, assert_same

import mxopt
from mxopt import Trainer, Updater, kvstore
from mxopt.errors import StatesError
from mxopt.sparse import RowSparse, row_sparse_array

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def grads_of(shape: tuple[int, ...], dtype: str, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [array(rng, shape, dtype) for _ in range(count)]


def wide(dtype: str) -> Any:
    return np.float64 if dtype == "float64" else np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("as_list", [False, True])
def test_it_updates_at_every_third_call_by_the_sum_in_float32_at_least(dtype: str, as_list: bool) -> None:
    options = {"learning_rate": 0.1, "multi_precision": True}
    summing, plain = Updater(mxopt.create("adam", **options), accumulate=3), Updater(mxopt.create("adam", **options))
    weight, other = (np.ones((4, 5), dtype) for _ in range(2))
    grads = grads_of((4, 5), dtype, 7)
    for k, grad in enumerate(grads, 1):
        before = weight.copy()
        if as_list:
            summing([0], [grad], [weight])
        else:
            summing(0, grad, weight)
        if k % 3:
            assert_same([weight], [before])
        else:
            first, second, third = (g.astype(wide(dtype)) for g in grads[k - 3 : k])
            plain(0, first + second + third, other)
        assert_same([weight], [other])
        assert summing.optimizer.num_update == k // 3


def test_each_index_is_counted_by_itself_and_lists_may_be_mixed() -> None:
    updater = Updater(mxopt.create("sgd", learning_rate=1.0), accumulate=2)
    weights = [np.zeros(2, np.float32) for _ in range(3)]
    one = np.ones(2, np.float32)
    updater(b"0", one, weights[0])
    updater(["0", "1"], [2 * one, one], weights[:2])
    assert [w.tolist() for w in weights] == [[-3, -3], [0, 0], [0, 0]]
    updater(["0", "1", "2"], [one, 4 * one, one], weights)
    assert [w.tolist() for w in weights] == [[-3, -3], [-5, -5], [0, 0]]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("order", ["sparse", "dense first", "sparse first"])
def test_row_sparse_gradients_are_summed_by_their_rows(order: str, lazy: bool) -> None:
    rows = [row_sparse_array((np.full((2, 3), k + 1, np.float32), [k, k + 2]), shape=(6, 3)) for k in range(3)]
    given: list[Any] = list(rows)
    if order != "sparse":
        given[0 if order == "dense first" else 1] = given[0 if order == "dense first" else 1].asnumpy()
    options = {"learning_rate": 0.1, "momentum": 0.9, "lazy_update": lazy}
    summing, plain = Updater(mxopt.create("sgd", **options), accumulate=3), Updater(mxopt.create("sgd", **options))
    weight, other = np.ones((6, 3), np.float32), np.ones((6, 3), np.float32)
    for _ in range(2):
        for grad in given:
            summing(0, grad, weight)
        total = rows[0] + rows[1] + rows[2]
        assert isinstance(total, RowSparse)
        plain(0, total if order == "sparse" else total.asnumpy(), other)
    assert_same([weight], [other])
    assert [g.asnumpy()[1, 0] for g in rows] == [0, 2, 0]  # nothing is written into the gradients


@pytest.mark.parametrize("way", ["states", "states and optimizer", "deepcopy", "pickle"])
@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_a_run_that_is_saved_between_two_updates_resumes_bit_for_bit(calls: int, way: str) -> None:
    updater = Updater(mxopt.create("adam", learning_rate=0.1), accumulate=3)
    weight, grads = np.ones(50, np.float32), grads_of((50,), "float32", 9)
    for grad in grads[:calls]:
        updater("w", grad, weight)
    twin = weight.copy()
    if way.startswith("states"):
        resumed = Updater(mxopt.create("adam", learning_rate=0.1), accumulate=3)
        resumed("w", grads[0], np.ones(50, np.float32))  # which is forgotten
        resumed.set_states(updater.get_states(dump_optimizer="optimizer" in way))
    else:
        resumed = copy.deepcopy(updater) if way == "deepcopy" else pickle.loads(pickle.dumps(updater))
    for grad in grads[calls:]:
        updater("w", grad, weight)
        resumed("w", grad, twin)
    assert_same([weight], [twin])
    assert updater.get_states() == resumed.get_states()


def test_sums_are_taken_by_nobody_who_would_forget_them(tmp_path: Any) -> None:
    updater = Updater(mxopt.create("sgd"), accumulate=2)
    weight = np.ones(2, np.float32)
    updater(0, weight, weight.copy())
    (tmp_path / "states").write_bytes(updater.get_states())
    store = kvstore.create("local")
    store.set_optimizer(mxopt.create("sgd"))
    trainer = Trainer([weight], "sgd")
    plain = mxopt.get_updater(mxopt.create("sgd"))
    for load in (
        lambda: store.load_optimizer_states(tmp_path / "states"),
        lambda: trainer.load_states(tmp_path / "states"),
        lambda: plain.set_states((tmp_path / "states").read_bytes()),
    ):
        with pytest.raises(StatesError, match="sums of gradients that wait for others"):
            load()  # type: ignore[no-untyped-call]
    updater(0, weight, weight.copy())
    plain.set_states(updater.get_states())  # nothing waits any more


def test_a_call_that_is_refused_adds_nothing() -> None:
    updater = Updater(mxopt.create("sgd", learning_rate=1.0), accumulate=2)
    weight, one = np.zeros(2, np.float32), np.ones(2, np.float32)
    read_only = np.zeros(2, np.float32)
    read_only.flags.writeable = False
    for first in (True, False):
        bad: list[tuple[Any, Any, Any]] = [
            ([0, 1], [one, np.ones(3, np.float32)], [weight, weight.copy()]),
            ([0, 1], [one, one], [weight, read_only]),
            ([0, 0], [one, one], [weight, weight.copy()]),
            ([0, 1], [one], [weight, weight.copy()]),
            ([0, 1], [one, weight], [weight.copy(), weight]),
            (0, one.astype(np.float64), weight),
            (0, None, weight),
            ([0, {}], [one, one], [weight, weight.copy()]),
        ]
        for index, grad, of in bad:
            with pytest.raises((ValueError, TypeError)):
                updater(index, grad, of)
        updater(0, one, weight)
        assert weight.tolist() == ([0, 0] if first else [-2, -2])


def test_a_weight_that_becomes_another_between_two_calls_is_refused() -> None:
    updater = Updater(mxopt.create("sgd", learning_rate=1.0), accumulate=2)
    updater(0, np.ones(2, np.float32), np.zeros(2, np.float32))
    for weight, match in (
        (np.zeros(2), "summed in float32, its weight needs float64"),
        (np.zeros(3, np.float32), "shape"),
    ):
        with pytest.raises(ValueError, match=match):
            updater(0, weight + 1, weight)
        assert not weight.any()


def test_an_update_that_fails_keeps_the_sum() -> None:
    class Failing(mxopt.optimizer.SGD):
        fails = True

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            if self.fails:
                raise RuntimeError("the disk is on fire")
            super().update(index, weight, grad, state)

    optimizer = Failing(learning_rate=1.0)
    updater, weight = Updater(optimizer, accumulate=2), np.zeros(2, np.float32)
    updater(0, np.ones(2, np.float32), weight)
    with pytest.raises(RuntimeError, match="on fire"):
        updater(0, np.full(2, 5, np.float32), weight)
    optimizer.fails = False
    updater(0, np.ones(2, np.float32), weight)
    assert weight.tolist() == [-2, -2]


def test_a_sum_that_is_not_finite_is_skipped_as_one_step() -> None:
    updater = Updater(mxopt.create("sgd", learning_rate=1.0), accumulate=2, skip_nonfinite=True)
    weight = np.zeros(2, np.float32)
    for value in (np.inf, 1, 1, 1):
        updater(0, np.full(2, value, np.float32), weight)
    assert (weight.tolist(), updater.skipped, updater.optimizer.num_update) == ([-2, -2], 1, 1)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2", None])
def test_what_is_no_number_of_calls_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="accumulate must be a whole number above 0"):
        Updater(mxopt.create("sgd"), accumulate=bad)
