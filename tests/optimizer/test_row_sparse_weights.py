"""Row-sparse weights: an update gives the bits of the dense weight they stand for, and makes the
rows that it moves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from bitwise import array, assert_same, flat
from table import CROSSED, ROWS, Row, crossed_id

import mxopt
from mxopt.engine import native, plan
from mxopt.engine.choice import EngineName
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.sparse import RowSparse, row_sparse_array, zeros

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")
SHAPES = [(40, 7), (9, 2, 3), (30,)]
EXISTING = [[3, 5, 8, 30], [0, 8], []]
TOUCHED = [[[3, 39], [0, 3, 5], [8]], [[1], [0, 8], []], [[2, 29], [7], [0, 1]]]  # by weight and step
# Every row of the table with and without lazy_update.
STORED = [case for case in CROSSED if not case[0].dense]
CASES = [(*case, lazy) for case in STORED for lazy in ((True, False) if case[0].takes_lazy_update else (None,))]


def made(row: Row, lazy: bool | None, **options: Any) -> mxopt.Updater:
    return mxopt.get_updater(row.make(**options, **({} if lazy is None else {"lazy_update": lazy})))


def starts(dtype: str, rows: Sequence[Any]) -> list[np.ndarray]:
    """Dense weights that are zero but for `rows`."""
    rng, found = np.random.default_rng(1), []
    for shape, mine in zip(SHAPES, rows, strict=True):
        weight = np.zeros(shape, dtype)
        weight[mine] = array(rng, (len(mine), *shape[1:]), dtype)
        found.append(weight)
    return found


def stored(weights: Sequence[np.ndarray], rows: Sequence[Any]) -> list[RowSparse]:
    return [row_sparse_array((w[r], np.array(r, np.int64)), w.shape) for w, r in zip(weights, rows, strict=True)]


def gradients(dtype: str, dense_at: int) -> list[list[Any]]:
    """Three steps of row-sparse gradients, and of dense ones at step `dense_at`."""
    rng, steps = np.random.default_rng(2), []
    for step in range(3):
        rows = [mine[step] for mine in TOUCHED]
        values = [array(rng, (len(r), *s[1:]), dtype, special=step == 1) for r, s in zip(rows, SHAPES, strict=True)]
        steps.append([row_sparse_array((v, r), s) for v, r, s in zip(values, rows, SHAPES, strict=True)])
        if step == dense_at:
            steps[-1] = [array(rng, shape, dtype) for shape in SHAPES]  # type: ignore[misc]
    return steps


def dense(x: Any) -> list[np.ndarray]:
    return [part.asnumpy() if isinstance(part, RowSparse) else part for part in flat(x)]


@pytest.mark.parametrize(("row", "dtype", "master", "lazy"), CASES, ids=crossed_id)
def test_the_bits_are_those_of_the_dense_weight(row: Row, dtype: str, master: bool, lazy: bool | None) -> None:
    expected = starts(dtype, EXISTING)
    whole = [np.arange(shape[0]) for shape in SHAPES]
    # As in MXNet, Ftrl leaves the other rows of a row-sparse weight alone whatever it is told.
    alone = made(row, True if row.name == "ftrl" else lazy, multi_precision=master)
    runs = []
    for rows in (EXISTING, whole):
        engine: EngineName
        for engine, as_list in (("llvm", False), ("llvm", True), ("numpy", True)):
            runs.append(
                (made(row, lazy, multi_precision=master), stored(starts(dtype, EXISTING), rows), engine, as_list)
            )
    for step, grads in enumerate(gradients(dtype, dense_at=2)):
        for k, (grad, weight) in enumerate(zip(grads, expected, strict=True)):
            alone(k, grad, weight)
        for updater, weights, engine, as_list in runs:
            with mxopt.use_engine(engine):
                if as_list:
                    updater([0, 1, 2], grads, weights)
                else:
                    for k, (grad, weight) in enumerate(zip(grads, weights, strict=True)):  # type: ignore[assignment]
                        updater(k, grad, weight)
            assert_same(dense(weights), expected, f"step {step}, {engine}, list: {as_list}")
            assert_same(dense([updater.states[k] for k in range(3)]), flat([alone.states[k] for k in range(3)]))


@pytest.mark.parametrize("row", [Row("adam"), Row("groupadagrad"), Row("lars", momentum=0.9)], ids=str)
def test_any_number_of_threads(row: Row, monkeypatch: pytest.MonkeyPatch, restore_threads: None) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    results = []
    for threads in (1, 2, 5):
        mxopt.set_num_threads(threads)
        rng, updater = np.random.default_rng(3), made(row, None)
        weight = row_sparse_array((array(rng, (500, 100), "float32"), np.arange(0, 1000, 2)), (1000, 100))
        for _ in range(3):
            rows = np.flatnonzero(rng.random(1000) < 0.6)
            updater(0, row_sparse_array((array(rng, (len(rows), 100), "float32"), rows), weight.shape), weight)
        results.append([weight.asnumpy(), *dense(updater.states[0])])
    for result in results[1:]:
        assert_same(result, results[0])


def test_rows_are_there_once_they_are_touched() -> None:
    for lazy, dense_grad, expected in ((True, False, [1, 2, 4]), (False, False, range(6)), (True, True, range(6))):
        weight = row_sparse_array((np.ones((2, 2), np.float32), [1, 4]), shape=(6, 2))
        grad = (
            np.ones((6, 2), np.float32) if dense_grad else row_sparse_array((np.ones((1, 2), np.float32), [2]), (6, 2))
        )
        updater = mxopt.get_updater(mxopt.create("adam", lazy_update=lazy, wd=0.5))
        updater(0, grad, weight)
        assert [x.indices.tolist() for x in (weight, *updater.states[0])] == [list(expected)] * 3
        assert not weight.asnumpy()[[0, 3, 5]].any() or dense_grad


def test_a_weight_that_has_all_its_rows_is_updated_where_it_is() -> None:
    data = np.ones((6, 2), np.float32)
    weight = row_sparse_array((data, np.arange(6)), shape=(6, 2))
    updater = mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5, momentum=0.5))
    for grad in (row_sparse_array((np.ones((1, 2), np.float32), [2]), (6, 2)), np.ones((6, 2), np.float32)):
        updater(0, grad, weight)
    assert weight.data is data
    assert data[:, 0].tolist() == [0.5, 0.5, -0.25, 0.5, 0.5, 0.5]


def test_a_table_too_large_to_be_dense_is_updated_lazily_only() -> None:
    weight = zeros("row_sparse", (100_000_000, 64))
    grad = row_sparse_array((np.ones((2, 64), np.float32), [7, 99_999_999]), weight.shape)
    updater = mxopt.get_updater(mxopt.create("adam", learning_rate=0.5))
    updater(0, grad, weight)
    assert np.allclose(weight.data, -0.5)
    standard = mxopt.get_updater(mxopt.create("adam", lazy_update=False))
    with pytest.raises(ArrayError, match="GiB as a dense array"):
        standard(0, grad, weight)
    assert weight.indices.tolist() == [7, 99_999_999]
    assert not standard.states
    assert standard.optimizer.num_update == 0


def test_a_plan_serves_until_a_new_row_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    made_plans: list[Any] = []
    monkeypatch.setattr(plan.Plan, "__init__", _counted(plan.Plan.__init__, made_plans))
    weight = row_sparse_array((np.ones((4, 2), np.float32), [1, 4, 5, 7]), shape=(9, 2))
    updater = mxopt.get_updater(mxopt.create("adam"))
    counts = []
    for rows in ([1, 4], [5], [], [4, 7], [2, 4], [2], [1, 2, 7]):
        updater(0, row_sparse_array((np.ones((len(rows), 2), np.float32), rows), (9, 2)), weight)
        counts.append(len(made_plans))
    assert counts == [counts[0]] * 4 + [2 * counts[0]] * 3


def _counted(method: Any, calls: list[None]) -> Any:
    def counted(*arguments: Any) -> None:
        calls.append(None)
        method(*arguments)

    return counted


def test_parts_that_were_exchanged_are_used_from_then_on() -> None:
    def ran(exchange: bool) -> list[np.ndarray]:
        weight = row_sparse_array((np.ones((3, 2), np.float32), [1, 4, 5]), shape=(9, 2))
        updater = mxopt.get_updater(mxopt.create("adam"))
        for rows in ([1, 4], [5], [1, 5]):
            updater(0, row_sparse_array((np.ones((len(rows), 2), np.float32), rows), (9, 2)), weight)
            for x in (weight, *updater.states[0]) if exchange else ():
                x.data, x.indices = x.data.copy(), x.indices.copy()
        return [weight.asnumpy(), *dense(updater.states[0])]

    assert_same(ran(True), ran(False))


def test_weights_of_both_kinds_in_a_list() -> None:
    for row in [row for row in ROWS if not row.dense]:
        start, other = starts("float32", EXISTING), [np.arange(s[0]) for s in SHAPES]
        single, listed = made(row, None), made(row, None)
        ones: list[Any] = [stored(start, EXISTING)[0], start[1].copy(), stored(start, other)[2]]
        several = [stored(start, EXISTING)[0], start[1].copy(), stored(start, other)[2]]
        for grads in gradients("float32", dense_at=1):
            for k in range(3):
                single(k, grads[k], ones[k])
            listed([0, 1, 2], grads, several)
            assert_same(dense(several), dense(ones), str(row))


def test_states_are_saved_and_copied() -> None:
    for row in (Row("sgd", momentum=0.9), Row("adam"), Row("groupadagrad")):
        weight = stored(starts("float16", EXISTING), EXISTING)[0]
        updater = made(row, None, multi_precision=True)
        steps = gradients("float16", dense_at=2)
        updater(0, steps[0][0], weight)
        other, again = weight.copy(), mxopt.get_updater(mxopt.create("test"))
        again.set_states(updater.get_states(dump_optimizer=True))
        third, deep = weight.copy(), copy.deepcopy(updater)
        for grads in steps[1:]:
            for each, w in ((updater, weight), (again, other), (deep, third)):
                each(0, grads[0], w)
        assert_same(dense([other, again.states[0]]), dense([weight, updater.states[0]]))
        assert_same(dense([third, deep.states[0]]), dense([weight, updater.states[0]]))


def test_dense_states_serve_where_all_rows_are_there() -> None:
    """States that were a dense weight's go on with a row-sparse one."""
    start, steps = starts("float32", EXISTING)[0], gradients("float32", dense_at=0)
    updater = mxopt.get_updater(mxopt.create("adam"))
    updater(0, steps[0][0], start)
    other, weight = copy.deepcopy(updater), row_sparse_array(start)
    for grads in steps[1:]:
        updater(0, grads[0], start)
        other(0, grads[0], weight)
    assert_same([weight.asnumpy()], [start])


class WrittenByHand(mxopt.Optimizer):
    """As MXNet's users write them."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return weight * 0

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        self._update_count(index)
        state += grad * self.rescale_grad
        weight -= state * self._get_lr(index)


def test_an_optimizer_written_with_arithmetic() -> None:
    for dtype, tolerance in (("float32", 0.0), ("float16", 2e-3)):
        start = starts(dtype, EXISTING)[0]
        results = []
        for weight in (row_sparse_array(start), start.copy()):
            updater = mxopt.get_updater(WrittenByHand(learning_rate=0.5, rescale_grad=0.5, multi_precision=True))
            for grads in gradients(dtype, dense_at=2)[::2]:
                updater(0, grads[0], weight)
            results.append(np.asarray(weight))
        np.testing.assert_allclose(*results, rtol=tolerance, atol=0)  # type: ignore[call-overload]


def sparse(rows: Any = (1, 4), dtype: str = "float32") -> RowSparse:
    return row_sparse_array((np.ones((len(rows), 2), dtype), rows), shape=(6, 2))


def spoilt(**parts: Any) -> RowSparse:
    x = sparse()
    for name, value in parts.items():
        setattr(x, name, value)
    return x


@pytest.mark.parametrize(
    ("weight", "grad", "error", "match"),
    [
        (spoilt(indices=np.array([4, 1])), sparse(), ArrayError, "the row indices of the weight must be ascending"),
        (spoilt(indices=np.array([1, 6])), sparse(), ArrayError, "the row indices of the weight must be"),
        (spoilt(data=np.ones((3, 2), np.float32)), sparse(), ArrayError, "one for each row"),
        (sparse(dtype="int32"), sparse(), ArrayTypeError, "the weight must be of"),
        (sparse(), row_sparse_array((7, 2)), ArrayError, "shape"),
        (sparse(), np.ones((2, 2), np.float32), ArrayError, "shape"),
        (sparse(), sparse(dtype="float64"), ArrayTypeError, "float64"),
        (sparse(), spoilt(indices=np.array([4, 1])), ArrayError, "the row indices of the gradient must be ascending"),
        (spoilt(data=np.broadcast_to(np.float32(1), (2, 2))), sparse(), ArrayError, "read-only"),
    ],
)
def test_what_cannot_be_updated_is_refused_and_nothing_changes(weight: Any, grad: Any, error: type, match: str) -> None:
    before = [np.array(weight.data), np.array(weight.indices)]
    for as_list in (False, True):
        updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
        with pytest.raises(error, match=match):
            updater(*([0], [grad], [weight]) if as_list else (0, grad, weight))
        assert updater.optimizer.num_update == 0
        assert not updater.states
    assert np.array_equal(weight.data, before[0])
    assert np.array_equal(weight.indices, before[1])


def test_memory_that_is_shared_is_refused() -> None:
    weight = sparse()
    updater = mxopt.get_updater(mxopt.create("sgd"))
    with pytest.raises(ArrayError, match="shares memory with the weight"):
        updater(0, RowSparse(weight.data, weight.indices, weight.shape), weight)
    with pytest.raises(ArrayError, match="weight is that of parameter 0 too"):
        updater([0, 1], [sparse(), sparse()], [weight, weight])
    assert (weight.data == 1).all()
    updater(0, RowSparse(np.ones((2, 2), np.float32), weight.indices, weight.shape), weight)  # the indices may be
    assert np.array_equal(weight.data, np.full((2, 2), np.float32(1) - np.float32(0.01)))


def test_a_row_sparse_state_of_a_dense_weight_is_refused() -> None:
    optimizer = mxopt.create("sgd", momentum=0.9)
    with pytest.raises(ArrayTypeError, match="like the weight"):
        optimizer.update(0, np.ones((6, 2), np.float32), sparse(), zeros("row_sparse", (6, 2)))
