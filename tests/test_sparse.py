"""Row-sparse arrays: how they are made, and lazy updates of the rows they have."""

# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import copy
import time
import warnings
from typing import Any

import numpy as np
import pytest
from bitwise import array, flat
from table import ROWS, Row

import mxopt
from mxopt.errors import ArrayError, ArrayTypeError, UnknownNameError
from mxopt.sparse import RowSparse, retain, row_sparse_array, zeros

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
    indices: Any
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
        (np.ones(2), [0, 1], (), ArrayError, "one axis or more"),
        (np.ones((2, 3)), [0, 5], (5, 3), ArrayError, "index 5 is out of range"),
        (np.ones((2, 3)), [-1, 0], (5, 3), ArrayError, "index -1 is out of range"),
        (np.ones((2, 3)), np.array([0, 2**63], np.uint64), (5, 3), ArrayError, "out of range"),
    ],
)
def test_what_does_not_fit_together(data: Any, indices: Any, shape: Any, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        row_sparse_array((data, indices), shape=shape)


# Other forms, and arithmetic.


def some(value: float = 1.0, rows: tuple[int, ...] = (0, 3), dtype: str = "float32") -> RowSparse:
    return row_sparse_array((np.full((len(rows), 2), value, dtype), rows), shape=(5, 2))


def test_no_numbers_but_a_shape_gives_zeros() -> None:
    for x in (zeros("row_sparse", (5, 2)), row_sparse_array((5, 2)), row_sparse_array((5, 2), dtype=np.float32)):
        assert (x.shape, x.dtype, len(x.indices), x.ndim, len(x)) == ((5, 2), np.float32, 0, 2, 5)
    assert zeros("row_sparse", 3, "float16").data.shape == (0,)
    assert isinstance(zeros("default", (5, 2)), np.ndarray)
    with pytest.raises(UnknownNameError, match="csr"):
        zeros("csr", (5, 2))


def test_a_dense_array_or_lists_give_the_rows_that_are_not_zero() -> None:
    x = row_sparse_array(np.array([[0, 0], [1, 2], [-0.0, 0], [0, np.nan]]))
    assert (x.indices.tolist(), x.dtype, x.shape) == ([1, 3], np.float64, (4, 2))
    assert row_sparse_array([[0, 0], [1, 2]]).dtype == np.float32
    assert row_sparse_array(np.arange(3.0)).indices.tolist() == [1, 2]
    with pytest.raises(ArrayError, match=r"\(2, 2\)"):
        row_sparse_array(np.ones((2, 2)), shape=(3, 2))
    for wrong in (3.0, None):
        with pytest.raises(ArrayTypeError, match="needs"):
            row_sparse_array(wrong)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr"])
def test_made_of_a_sparse_matrix_of_scipy(form: str, rng: np.random.Generator) -> None:
    scipy = pytest.importorskip("scipy.sparse")
    dense = np.where(rng.random((9, 4)) < 0.2, rng.standard_normal((9, 4)), 0)
    for kind in (scipy.coo_matrix, scipy.coo_array):
        x = row_sparse_array(kind(dense).asformat(form))
        assert x.is_sound()
        assert np.array_equal(x.asnumpy(), dense)
    twice = row_sparse_array(scipy.coo_matrix(([1.0, 2.0], ([3, 3], [1, 1])), shape=(9, 4)))
    assert (twice.indices.tolist(), twice.data.tolist()) == ([3], [[0, 3, 0, 0]])


def test_made_of_a_sparse_tensor_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Embedding(6, 2, sparse=True)
    layer(torch.tensor([4, 1, 4])).sum().backward()
    x = row_sparse_array(layer.weight.grad)
    assert (x.indices.tolist(), x.data.tolist(), x.shape) == ([1, 4], [[1, 1], [2, 2]], (6, 2))
    assert str(row_sparse_array(layer.weight.grad.bfloat16()).dtype) == "bfloat16"
    elements = torch.sparse_coo_tensor([[3, 0, 3], [1, 0, 1]], [1.0, 2.0, 3.0], (5, 2), check_invariants=True)
    assert row_sparse_array(elements).data.tolist() == [[2, 0], [0, 4]]


def test_made_of_a_dense_tensor_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor([[0.0], [2.0]], requires_grad=True), torch.tensor([[0.0], [2.0]]).bfloat16()):
        made = row_sparse_array(tensor)
        assert (made.indices.tolist(), made.data.astype(np.float32).tolist()) == ([1], [[2]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its CSR form a beta
        rows = torch.ones(2, 2).to_sparse_csr()
    with pytest.raises(ArrayError, match="sparse in COO form"):
        row_sparse_array(rows)


def test_dense_and_row_sparse_copies() -> None:
    x, dense = some(), some().todense()
    for same in (x.asnumpy(), x.tostype("default"), np.asarray(x), x.copyto(np.full((5, 2), 7.0, np.float16))):
        assert np.array_equal(same, dense)
    target = some(9.0, (1, 2), "float16")
    assert x.copyto(target) is target
    copies = x.copy(), x.tostype("row_sparse"), x.astype("float64"), target, copy.deepcopy(x)
    assert [c.dtype for c in copies] == ["float32", "float32", "float64", "float16", "float32"]
    for c in copies:
        c.data[...] = 8
        assert c.indices.tolist() == [0, 3]
    assert np.array_equal(x.asnumpy(), dense)
    assert x.astype("float32", copy=False) is x
    assert x.copyto(x) is x
    with pytest.raises(UnknownNameError, match="csr"):
        x.tostype("csr")
    with pytest.raises(ArrayError, match=r"\(5, 2\).*\(4, 2\)"):
        x.copyto(np.ones((4, 2)))
    with pytest.raises(ValueError, match="without a copy"):
        np.array(x, copy=False)


def test_retained_rows_are_there_and_no_others() -> None:
    for x in (some().retain(np.array([4.0, 0, 1, 0])), retain(some(), [4, 0, 1])):
        assert (x.indices.tolist(), x.data[:, 0].tolist()) == ([0, 1, 4], [1, 0, 0])
    for wrong in ([9], [-1], ["a"], [1.5], [np.nan], [True, False], np.ma.masked_array([0, 3], [0, 1])):  # type: ignore[arg-type]
        with pytest.raises(ArrayError, match="row numbers"):
            some().retain(wrong)  # type: ignore[arg-type]


def test_arithmetic_that_stays_row_sparse() -> None:
    two = np.float64(2)  # a number of NumPy's doesn't widen the dtype
    for x in (2 * some(), some() * 2, two * some(), some() * two, some() / 0.5, some() + some(), -some(-2.0)):
        assert isinstance(x, RowSparse)
        assert (x.indices.tolist(), x.data.tolist(), x.dtype) == ([0, 3], [[2, 2], [2, 2]], np.float32)
    other = some(2.0, (3, 4))
    assert [(some() + other).data[:, 0].tolist(), (some() - other).data[:, 0].tolist()] == [[1, 3, 2], [1, -1, -2]]
    assert (some() + other).indices.tolist() == [0, 3, 4]
    assert (some(dtype="float16") + other).dtype == np.float32


def test_arithmetic_in_place() -> None:
    """As an updater of MXNet's users is written: `weight += grad * rate`."""
    x = same = some()
    data = x.data
    x += some(2.0, (3,)) * 2
    assert x.data is data  # no row came in
    x -= some(1.0, (4,))
    assert x is same
    assert (x.indices.tolist(), x.data[:, 0].tolist()) == ([0, 3, 4], [1, 5, -1])
    x *= 4
    x /= 2
    assert x.data[:, 0].tolist() == [2, 10, -2]
    x += np.ones((5, 2), np.float32)
    assert x.data[:, 0].tolist() == [3, 1, 1, 11, -1]
    x[:] = some(2.0, (3, 4))
    assert x.indices.tolist() == [3, 4]
    x[:] = 3
    assert x.data.tolist() == [[3, 3]] * 5
    assert x[:] is x


def test_arithmetic_with_dense_arrays_is_dense() -> None:
    dense = np.ones((5, 2), np.float32)
    assert [(dense + some())[:, 0].tolist(), (some() + dense)[:, 0].tolist()] == [[2, 1, 1, 2, 1]] * 2
    assert [(dense - some())[:, 0].tolist(), (1 - some())[:, 0].tolist()] == [[0, 1, 1, 0, 1]] * 2
    assert (some() + 1)[:, 0].tolist() == [2, 1, 1, 2, 1]
    same = dense
    dense += some() * 3
    dense -= some()
    assert dense is same
    assert dense[:, 0].tolist() == [3, 1, 1, 3, 1]


def test_comparison_is_element_by_element() -> None:
    """As MXNet's, which gives 0 and 1 for NumPy's False and True."""
    a, b = some(), some(1.0, (3, 4))
    for same, other in ((a == b, a != b), (a == b.asnumpy(), a != b.asnumpy()), (b.asnumpy() == a, b.asnumpy() != a)):
        assert same.tolist() == (~other).tolist() == [[x] * 2 for x in (False, True, True, True, False)]
    assert (a == 0)[:, 0].tolist() == [False, True, True, False, True]
    assert (a == np.float64(1)).sum() == 4
    assert [a == None, a != None, a == "a", a in [a, 0], {a: 1}[a]] == [False, True, False, True, 1]  # noqa: E711


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: some() * some(), "by numbers"),
        (lambda: some() + np.ones(2), "own shape"),
        (lambda: np.ones((4, 2)) + some(), "own shape"),
        (lambda: some() + row_sparse_array((6, 2)), "own shape"),
        (lambda: some() + None, "own shape"),
        (lambda: some() == row_sparse_array((6, 2)), "own shape"),
        (lambda: some() == np.ones(2), "own shape"),
        (lambda: some()[0], "as x"),
        (lambda: list(some()), "as x"),  # type: ignore[call-overload]
        (lambda: np.sqrt(some()), "numpy.sqrt"),
        (lambda: np.add.reduce(some()), "numpy.add"),
        (lambda: some().__iadd__(np.ma.masked_array(np.ones((5, 2), np.float32))), "MaskedArray may mean more"),
        (lambda: some().__setitem__(..., np.ma.masked_array(np.ones((5, 2), np.float32))), "MaskedArray may mean more"),
        (lambda: some().copyto(np.ma.masked_array(np.ones((5, 2), np.float32))), "MaskedArray may mean more"),
        (lambda: some(dtype="int64").__iadd__(some()), "float32 can't be written"),
        (lambda: some(dtype="int64").__imul__(0.5), "float64 can't be written"),
        (lambda: np.ones((5, 2), np.int64).__iadd__(some()), "float32 can't be written"),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(wrong: Any, match: str) -> None:
    with pytest.raises(ArrayError, match=match):
        wrong()


@pytest.mark.parametrize(
    "dense",
    [RowSparse.asnumpy, RowSparse.todense, np.asarray, lambda x: x + 1, lambda x: x.__setitem__(slice(None), 0)],
)
def test_a_dense_form_above_two_gibibytes_is_refused(dense: Any) -> None:
    with pytest.raises(ArrayError, match=r"takes 23\.8 GiB as a dense array"):
        dense(zeros("row_sparse", (100_000_000, 64)))


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
    """All rows touched, a lazy update is the dense one (of layer-wise rules too: the norms are of
    all rows)."""
    rng = np.random.default_rng(1)
    start = array(rng, (50, 8), "float32")
    results = []
    for lazy in (True, False):
        updater, weight, stream = mxopt.get_updater(row.make(lazy_update=lazy)), start.copy(), np.random.default_rng(2)
        for _ in range(3):
            dense = array(stream, start.shape, "float32")
            updater(0, row_sparse_array((dense, np.arange(50)), shape=start.shape) if lazy else dense, weight)
        results.append(weight)
    assert np.array_equal(*results)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [row for row in ROWS if not row.make().lazy_update or row.takes_lazy_update], ids=str)
def test_a_standard_update_takes_the_dense_gradient_it_stands_for(row: Row) -> None:
    rng = np.random.default_rng(3)
    start = array(rng, (50, 8), "float32")
    grads = [row_sparse_array((array(rng, (4, 8), "float32"), [3, 5, 8, 40]), shape=start.shape) for _ in range(3)]
    results = []
    for take in (lambda g: g, RowSparse.todense):
        updater, weight = mxopt.get_updater(row.make()), start.copy()
        updater.optimizer.lazy_update = False  # type: ignore[attr-defined]  # also for NAG without momentum, which is lazy otherwise
        for grad in grads:
            updater(0, take(grad), weight)
        results.append(weight)
    assert np.array_equal(*results)  # type: ignore[arg-type]


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
