"""Row-sparse arrays: how they are made, and lazy updates of the rows they have."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from bitwise import array, flat
from table import ROWS, Row

import mxopt
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.sparse import RowSparse, row_sparse_array

LAZY = [row for row in ROWS if row.takes_lazy_update]


def test_sorted_rows_are_taken_without_a_copy() -> None:
    data, indices = np.ones((2, 3), np.float32), np.array([1, 4])
    x = row_sparse_array((data, indices), shape=(6, 3))
    assert x.data is data
    assert x.indices is indices
    assert (x.shape, x.dtype, x.stype) == ((6, 3), np.float32, "row_sparse")
    assert repr(x) == "<RowSparse 6x3 float32, 2 rows>"


def test_dense_form() -> None:
    x = row_sparse_array(([[1.0, 2.0], [3.0, 4.0]], [3, 0]))
    assert x.todense().tolist() == [[3, 4], [0, 0], [0, 0], [1, 2]]
    assert x.rows(1, 4).tolist() == [[0, 0], [0, 0], [1, 2]]


def test_unsorted_and_repeated_rows_are_sorted_and_added_in_their_order(rng: np.random.Generator) -> None:
    for _ in range(20):
        count, rows = int(rng.integers(0, 30)), int(rng.integers(1, 12))
        indices, data = rng.integers(0, rows, count), rng.standard_normal((count, 2)).astype(np.float32)
        x = row_sparse_array((data, indices), shape=(rows, 2))
        dense = np.zeros((rows, 2), np.float32)
        for i, row in zip(indices, data, strict=True):
            dense[i] += row
        assert x.is_sound()
        assert np.array_equal(x.todense(), dense)
        assert np.array_equal(x.indices, np.unique(indices))


def test_a_single_negative_zero_stays_one() -> None:
    assert np.signbit(row_sparse_array(([[-0.0], [1.0]], [2, 0])).todense()[2, 0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64])
def test_indices_of_any_whole_dtype(dtype: Any) -> None:
    x = row_sparse_array((np.ones((2, 1)), np.array([5, 2], dtype)), shape=(9, 1))
    assert x.indices.dtype == np.int64
    assert x.indices.tolist() == [2, 5]


def test_no_rows() -> None:
    for indices in ([], np.array([], np.int32), np.zeros(0)):
        x = row_sparse_array((np.zeros((0, 3)), indices), shape=(4, 3))
        assert x.todense().tolist() == np.zeros((4, 3)).tolist()


def test_one_made_of_another() -> None:
    x = row_sparse_array((np.ones((1, 2)), [1]), shape=(5, 2))
    y = row_sparse_array(x, dtype=np.float32)
    assert (y.shape, y.dtype) == ((5, 2), np.float32)
    assert row_sparse_array(x, shape=(7, 2)).shape == (7, 2)


@pytest.mark.parametrize(
    ("data", "indices", "shape", "error", "match"),
    [
        (np.ones((2, 3)), [0.0, 1.0], None, ArrayTypeError, "whole"),
        (np.ones((2, 3)), [True, False], None, ArrayTypeError, "whole"),
        (np.ones((2, 3)), [0], None, ArrayError, "one index for each row"),
        (np.ones((2, 3)), [[0, 1]], None, ArrayError, "one index for each row"),
        (np.ones((2, 3)), 1, None, ArrayError, "one index for each row"),
        (3.0, [0], None, ArrayError, "one index for each row"),
        (np.ones((2, 3)), [0, 1], (5, 4), ArrayError, "don't fit"),
        (np.ones((2, 3)), [0, 1], (5,), ArrayError, "don't fit"),
        (np.ones(2), [0, 1], (), ArrayError, "don't fit"),
        (np.ones((2, 3)), [0, 5], (5, 3), ArrayError, "index 5 is out of range"),
        (np.ones((2, 3)), [-1, 0], (5, 3), ArrayError, "index -1 is out of range"),
        (np.ones((2, 3)), np.array([0, 2**63], np.uint64), (5, 3), ArrayError, "out of range"),
    ],
)
def test_what_does_not_fit_together(data: Any, indices: Any, shape: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        row_sparse_array((data, indices), shape=shape)


# Lazy updates.


@pytest.mark.parametrize("row", LAZY, ids=str)
def test_rows_without_a_gradient_are_left_alone(row: Row) -> None:
    rng = np.random.default_rng(0)
    updater, weight = mxopt.get_updater(row.make(lazy_update=True)), array(rng, (50, 8), "float32")
    updater(0, array(rng, weight.shape, "float32"), weight)
    before, states = weight.copy(), [s.copy() for s in flat(updater.states[0])]
    indices = np.array([0, 7, 49])
    grad = row_sparse_array((array(rng, (3, 8), "float32"), indices), shape=weight.shape)
    updater(0, grad, weight)
    others = np.setdiff1d(np.arange(50), indices)
    assert np.array_equal(weight[others], before[others])
    assert not np.array_equal(weight[indices], before[indices])
    for state, old in zip(flat(updater.states[0]), states, strict=True):
        assert np.array_equal(state[others], old[others])


@pytest.mark.parametrize("row", LAZY, ids=str)
def test_touched_rows_are_updated_as_by_a_dense_gradient(row: Row) -> None:
    """All rows touched, a lazy update is the dense one (of layer-wise rules too: the norms are of all rows)."""
    rng = np.random.default_rng(1)
    start = array(rng, (50, 8), "float32")
    results = []
    for lazy in (True, False):
        updater, weight, stream = mxopt.get_updater(row.make(lazy_update=lazy)), start.copy(), np.random.default_rng(2)
        for _ in range(3):
            dense = array(stream, start.shape, "float32")
            updater(0, row_sparse_array((dense, np.arange(50)), shape=start.shape) if lazy else dense, weight)
        results.append(weight)
    assert np.array_equal(*results)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.make().lazy_update or row.takes_lazy_update], ids=str)
def test_a_standard_update_takes_the_dense_gradient_it_stands_for(row: Row) -> None:
    rng = np.random.default_rng(3)
    start = array(rng, (50, 8), "float32")
    grads = [row_sparse_array((array(rng, (4, 8), "float32"), [3, 5, 8, 40]), shape=start.shape) for _ in range(3)]
    results = []
    for take in (lambda g: g, RowSparse.todense):
        updater, weight = mxopt.get_updater(row.make()), start.copy()
        updater.optimizer.lazy_update = False  # also for NAG without momentum, which is lazy otherwise
        for grad in grads:
            updater(0, take(grad), weight)
        results.append(weight)
    assert np.array_equal(*results)


def test_a_lazy_update_costs_by_its_rows_not_by_the_table() -> None:
    for row in (Row("sgd", momentum=0.9), Row("adam"), Row("ftrl", lazy_update=True), Row("groupadagrad")):
        best = []
        for rows in (10_000, 1_000_000):
            updater, weight = mxopt.get_updater(row.make()), np.zeros((rows, 16), np.float32)
            grad = row_sparse_array((np.ones((64, 16), np.float32), np.arange(64) * (rows // 64)), shape=weight.shape)
            updater(0, grad, weight)
            times = []
            for _ in range(50):
                begin = time.perf_counter()
                updater(0, grad, weight)
                times.append(time.perf_counter() - begin)
            best.append(min(times))
        assert best[1] < 20 * best[0], row  # the table is a hundred times as large
