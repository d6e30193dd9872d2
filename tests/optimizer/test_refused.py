"""What can't be updated is refused before anything has changed, and the error names the
parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bitwise import copied, flat
from table import ROWS, Row

import mxopt
from mxopt.errors import ArrayError, ArrayTypeError, MXOptError
from mxopt.sparse import row_sparse_array


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(3)]


def grad() -> np.ndarray:
    return np.ones((4, 3), np.float32)


class Elsewhere:
    """An array that says it is on another device."""

    shape, dtype = (4, 3), np.dtype(np.float32)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("this memory is on a GPU")


class OnlyCuda:
    """An array that lends its memory to GPUs only."""

    __cuda_array_interface__: dict[str, Any] = {"shape": (4, 3), "typestr": "<f4", "data": (1, False), "version": 3}  # noqa: RUF012


def aliased(offset: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    def make() -> tuple[np.ndarray, np.ndarray]:
        memory = np.ones(40, np.float32)
        return memory[:12].reshape(4, 3), memory[offset : offset + 12].reshape(4, 3)

    return make


def strided(shape: tuple[int, ...], *steps: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight whose axes go through memory by these numbers of bytes, and a gradient."""
    return np.lib.stride_tricks.as_strided(np.ones(40, np.float32), shape, steps), np.ones(shape, np.float32)


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


# Pairs of a weight and a gradient: by name, how to make them, the error, and words of its message.
PAIRS: dict[str, tuple[Callable[[], tuple[Any, Any]], type, str]] = {
    "shape": (lambda: (grad(), np.ones((3, 4), np.float32)), ArrayError, "shape"),
    "fewer dimensions": (lambda: (grad(), np.ones(12, np.float32)), ArrayError, "shape"),
    "broadcastable": (lambda: (grad(), np.ones((1, 3), np.float32)), ArrayError, "shape"),
    "integer weight": (lambda: (np.ones((4, 3), np.int32), grad()), ArrayTypeError, "int32"),
    "complex weight": (lambda: (np.ones((4, 3), np.complex64), grad()), ArrayTypeError, "complex64"),
    "weight of objects": (lambda: (np.ones((4, 3), object), grad()), ArrayTypeError, "object"),
    "integer gradient": (lambda: (grad(), np.ones((4, 3), np.int64)), ArrayTypeError, "int64"),
    "wider gradient": (lambda: (grad(), np.ones((4, 3), np.float64)), ArrayTypeError, "float64"),
    "gradient elsewhere": (lambda: (grad(), Elsewhere()), ArrayTypeError, "Elsewhere.*GPU"),
    "weight elsewhere": (lambda: (Elsewhere(), grad()), ArrayTypeError, "Elsewhere.*GPU"),
    "weight for GPUs only": (lambda: (OnlyCuda(), grad()), ArrayTypeError, "OnlyCuda"),
    "weight of None": (lambda: (None, grad()), ArrayTypeError, "NoneType"),
    "weight of a list": (lambda: ([[1.0] * 3] * 4, grad()), ArrayTypeError, "list"),
    "weight of a number": (lambda: (1.0, grad()), ArrayTypeError, "float"),
    "gradient of None": (lambda: (grad(), None), ArrayTypeError, "NoneType"),
    "read-only weight": (lambda: (read_only(grad()), grad()), ArrayError, "read-only"),
    "read-only buffer": (lambda: (bytes(48), grad()), ArrayError, ""),
    "broadcast weight": (lambda: strided((4, 3), 0, 4), ArrayError, "broadcast"),
    "weight of sliding windows": (lambda: strided((4, 3), 4, 4), ArrayError, "share memory"),
    "elements that overlap": (lambda: strided((4,), 2), ArrayError, "share memory"),
    "axes that meet": (lambda: strided((2, 3), 16, 8), ArrayError, "share memory"),
    "gradient is the weight": (aliased(0), ArrayError, "memory"),
    "gradient overlaps the weight": (aliased(5), ArrayError, "memory"),
    "gradient overlaps the end": (aliased(11), ArrayError, "memory"),
}  # fmt: skip


def assert_refused(row: Row, make: Callable[[], tuple[Any, Any]], error: type, match: str, as_list: bool) -> None:
    """Refused as the first update of an index, and later, alone and in the middle of a list; then
    all goes on."""
    updater, good = mxopt.get_updater(row.make()), weights()
    updater([0, 1, 2], [grad(), grad(), grad()], good)
    before = [w.copy() for w in good], copied(updater.states[0]), updater.get_states(dump_optimizer=True)
    for index in (1, "new"):
        weight, g = make()
        arguments = ([0, index, 2], [grad(), g, grad()], [good[0], weight, good[2]]) if as_list else (index, g, weight)
        with pytest.raises(error, match=f"(?s)parameter {index!r}.*{match}") as caught:
            updater(*arguments)
        assert isinstance(caught.value, MXOptError)
        assert all(np.array_equal(a, b) for a, b in zip(good, before[0], strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(flat(updater.states[0]), flat(before[1]), strict=True))
        assert updater.get_states(dump_optimizer=True) == before[2]
    updater([0, 1, 2], [grad(), grad(), grad()], good)
    updater("new", np.ones(5, np.float64), np.ones(5, np.float64))


@pytest.mark.parametrize("as_list", [False, True], ids=["alone", "list"])
@pytest.mark.parametrize("name", PAIRS)
def test_weights_and_gradients(name: str, as_list: bool) -> None:
    for row in (Row("sgd", momentum=0.9), Row("adam")):
        assert_refused(row, *PAIRS[name], as_list)


def test_views_whose_elements_are_apart_are_updated_however_their_axes_lie() -> None:
    for weight, g in (strided((2, 3), 20, 12), strided((2, 2), 8, 12), strided((3, 1, 2), 48, 0, 4)):
        updater = mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5))
        updater(0, g, weight)
        assert (weight == 0.5).all()


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("as_list", [False, True], ids=["alone", "list"])
def test_every_optimizer_refuses(row: Row, as_list: bool) -> None:
    for name in ("shape", "integer weight", "wider gradient", "gradient is the weight", "read-only weight"):
        assert_refused(row, *PAIRS[name], as_list)


# Row-sparse gradients that somebody has changed since they were made.


def change(**parts: Any) -> Callable[[], Any]:
    def make() -> Any:
        g = row_sparse_array((np.ones((2, 3), np.float32), [1, 3]), shape=(4, 3))
        for name, value in parts.items():
            setattr(g, name, value)
        return g

    return make


CHANGED = {
    "beyond the end": change(indices=np.array([1, 4])),
    "far beyond the end": change(indices=np.array([1, 2**40])),
    "negative": change(indices=np.array([-1, 3])),
    "unsorted": change(indices=np.array([3, 1])),
    "duplicate": change(indices=np.array([3, 3])),
    "of another dtype": change(indices=np.array([1, 3], np.int32)),
    "not contiguous": change(indices=np.array([1, 0, 3, 0])[::2]),
    "a list": change(indices=[1, 3]),
    "too few": change(indices=np.array([1])),
    "too many": change(indices=np.array([0, 1, 2])),
    "in two dimensions": change(indices=np.array([[1, 3]])),
    "data of other columns": change(data=np.ones((2, 4), np.float32)),
    "data of one dimension": change(data=np.ones(6, np.float32)),
    "data of another dtype": change(data=np.ones((2, 3), np.int32)),
    "data of a list": change(data=[[1.0] * 3] * 2),
    "another shape": change(shape=(5, 3)),
}


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "standard"])
@pytest.mark.parametrize("name", CHANGED)
def test_row_sparse_gradients(name: str, lazy: bool) -> None:
    for row in (Row("sgd", momentum=0.9, lazy_update=lazy), Row("lars", lazy_update=lazy), Row("groupadagrad")):
        for as_list in (False, True):
            assert_refused(row, lambda: (grad(), CHANGED[name]()), ArrayError, "", as_list)
        updater, weight = mxopt.get_updater(row.make()), grad()
        for _ in range(2):  # a plan is made, and used
            updater(0, change()(), weight)
        before = weight.copy(), updater.get_states()
        with pytest.raises(ArrayError, match="parameter 0"):
            updater(0, CHANGED[name](), weight)
        assert np.array_equal(weight, before[0])
        assert updater.get_states() == before[1]


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 18, 33, 40])
def test_indices_of_any_number_that_are_wrong_anywhere(count: int) -> None:
    """A plan looks at them in compiled code."""
    updater, weight = mxopt.get_updater(mxopt.create("sgd")), np.ones((100, 1), np.float32)
    g = row_sparse_array((np.ones((count, 1), np.float32), np.arange(count) * 2 + 1), shape=weight.shape)
    for _ in range(2):
        updater(0, g, weight)
    before = weight.copy()
    for k in range(count):
        neighbours = [g.indices[j] for j in (k - 1, k + 1) if 0 <= j < count]
        for wrong in (*neighbours, -1, 100, 2**62, -(2**62)):
            right, g.indices[k] = g.indices[k], wrong
            with pytest.raises(ArrayError, match="row indices"):
                updater(0, g, weight)
            g.indices[k] = right
    assert np.array_equal(weight, before)
    updater(0, g, weight)
    assert not np.array_equal(weight, before)


def test_indices_written_to_after_a_first_update() -> None:
    updater, weight, g = mxopt.get_updater(mxopt.create("sgd")), grad(), change()()
    for _ in range(2):
        updater(0, g, weight)
    g.indices[1] = 10**9
    before = weight.copy()
    with pytest.raises(ArrayError, match="row indices"):
        updater(0, g, weight)
    assert np.array_equal(weight, before)


# Calls.


@pytest.mark.parametrize(
    ("indices", "grads", "given"), [([0, 1], 1, 2), ([0, 1], 2, 1), ([0], 2, 2), ([0, 1, 2], 2, 2)]
)
def test_lists_of_different_lengths(indices: list[int], grads: int, given: int) -> None:
    for row in ROWS:
        updater, some = mxopt.get_updater(row.make()), weights()
        with pytest.raises(ArrayError, match=f"lists of {len(indices)} ind(ex|ices)"):
            updater(indices, [grad() for _ in range(grads)], some[:given])
        assert not updater.states
        assert updater.optimizer.num_update == 0
        assert all(np.array_equal(a, b) for a, b in zip(some, weights(), strict=True))


def test_empty_lists_do_nothing() -> None:
    for row in ROWS:
        updater = mxopt.get_updater(row.make())
        updater([], [], [])
        assert updater.optimizer.num_update == 0


def test_a_weight_without_rows_where_rows_are_needed() -> None:
    updater = mxopt.get_updater(mxopt.create("groupadagrad"))
    with pytest.raises(ArrayError, match=r"parameter 0.*rows"):
        updater(0, np.ones((), np.float32), np.ones((), np.float32))


def test_weight_and_gradient_by_name_come_in_any_order() -> None:
    weight = np.zeros(4, np.float32)
    mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5))(0, weight=weight, grad=np.ones(4, np.float32))
    assert (weight == -0.5).all()


def test_a_refused_step_makes_no_weight_of_a_gradient() -> None:
    weight, grad = np.zeros(4, np.float32), np.ones(4, np.float32)
    updater = mxopt.get_updater(mxopt.create("adam"))
    with pytest.raises(ValueError, match="shape"):
        updater(0, np.zeros(5, np.float32), grad)  # in the weight's place
    updater(0, grad, weight)
    updater(0, grad, weight.copy())  # another array for it is nobody's mistake
    updater(0, grad, weight)
