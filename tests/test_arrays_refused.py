"""Arrays that mean more than what is in their memory, and things that are no arrays, are refused in
words; other byte orders work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bitwise import assert_same, flat
from table import ROWS, Row

import mxopt
from mxopt.document import dump_document
from mxopt.engine.choice import EngineName
from mxopt.errors import ArrayTypeError, StatesError
from mxopt.sparse import RowSparse, row_sparse_array

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

SHAPE = (2, 3)


class Quantity(np.ndarray):
    """Somebody's array with a unit."""


def ones() -> np.ndarray:
    return np.ones(SHAPE, np.float32)


def matrix() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy would rather have it gone
        return np.matrix(ones())


# What np.asarray makes of each of these is not what it means, or may not be.
MEANING_MORE = {
    "masked": lambda: np.ma.masked_array(ones(), mask=np.eye(2, 3)),  # type: ignore[arg-type]
    "matrix": matrix,
    "recarray": lambda: ones().view(np.recarray),
    "subclass": lambda: ones().view(Quantity),
}
if torch is not None:
    MEANING_MORE |= {
        "negative": lambda: torch.ones(SHAPE, dtype=torch.cfloat).conj().imag,
        "tensor of a subclass": lambda: torch.ones(SHAPE).as_subclass(type("Tensor", (torch.Tensor,), {})),
    }
OF_NUMPY = ["masked", "matrix", "recarray", "subclass"]


@pytest.fixture(params=MEANING_MORE)
def more(request: pytest.FixtureRequest) -> Any:
    return MEANING_MORE[request.param]()  # type: ignore[no-untyped-call]


@pytest.fixture(params=OF_NUMPY)
def of_numpy(request: pytest.FixtureRequest) -> Any:
    return MEANING_MORE[request.param]()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_refused_by_updaters_as_weight_and_gradient(more: Any, engine: EngineName) -> None:
    with mxopt.use_engine(engine):
        for grad, weight in ((more, ones()), (ones(), more)):
            updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
            before = np.array(np.asarray(weight if weight is not more else ones()))
            for arguments in ((0, grad, weight), ([0], [grad], [weight]), ([1, 0], [ones(), grad], [ones(), weight])):
                with pytest.raises(ArrayTypeError, match=r"parameter 0.*(more than|stands for)"):
                    updater(*arguments)
            assert updater.optimizer.num_update == 0
            if weight is not more:
                assert np.array_equal(weight, before)


def test_refused_after_a_plan_was_made(more: Any) -> None:
    updater, weight = mxopt.get_updater(mxopt.create("adam")), ones()
    updater(0, ones(), weight)
    with pytest.raises(ArrayTypeError, match="parameter 0"):
        updater(0, more, weight)
    assert updater.optimizer.num_update == 1


def test_refused_as_states(of_numpy: Any) -> None:
    optimizer = mxopt.create("sgd", momentum=0.9, multi_precision=True)
    with pytest.raises(ArrayTypeError, match=r"velocity.*more than"):
        optimizer.update(0, ones(), ones(), of_numpy)
    with pytest.raises(ArrayTypeError, match=r"master copy.*more than"):
        optimizer.update_multi_precision(0, ones().astype("float16"), ones(), (ones(), of_numpy))
    assert optimizer.num_update == 0


def test_refused_as_rows_and_row_numbers(of_numpy: Any) -> None:
    updater, numbers = mxopt.get_updater(mxopt.create("sgd")), np.arange(2).view(type(of_numpy))
    wrong = [(of_numpy, np.arange(2)), (ones(), numbers)]
    for data, indices in wrong:
        with pytest.raises(ArrayTypeError, match="more than"):
            row_sparse_array((data, indices), shape=SHAPE)
    with pytest.raises(ArrayTypeError, match="more than"):
        row_sparse_array(of_numpy)
    for grad in (RowSparse(of_numpy, np.arange(2), SHAPE), RowSparse(ones(), numbers, SHAPE)):
        with pytest.raises(ArrayTypeError, match=r"parameter 0.*more than"):
            updater(0, grad, ones())


def test_refused_by_stores(more: Any) -> None:
    store = mxopt.kvstore.create("local")
    with pytest.raises(ArrayTypeError, match="key 'w'"):
        store.init("w", more)
    store.init("w", ones())
    for call in (store.push, store.pushpull, store.pull):
        for value in (more, [ones(), more]):
            with pytest.raises(ArrayTypeError, match="key 'w'"):
                call("w", value)
    with pytest.raises(ArrayTypeError, match="row_ids"):
        store.row_sparse_pull("w", out=row_sparse_array((2, 3)), row_ids=np.ma.masked_array([0, 1], mask=[0, 1]))  # type: ignore[arg-type]


def test_refused_in_what_is_saved(of_numpy: Any) -> None:
    with pytest.raises(StatesError, match="states hold arrays"):
        dump_document({"x": of_numpy})


def test_refused_by_parameters_and_the_trainer(more: Any) -> None:
    with pytest.raises(ArrayTypeError, match="'w'"):
        mxopt.Parameter(more, name="w")
    parameter = mxopt.Parameter(ones(), name="w")
    with pytest.raises(ArrayTypeError, match="'w'"):
        parameter.set_data(more)
    trainer, parameter.grad = mxopt.Trainer([parameter], "sgd"), more
    with pytest.raises(ArrayTypeError, match=r"more than|stands for"):
        trainer.step(1)
    assert np.array_equal(parameter.value, ones())


@pytest.mark.parametrize("family", [mxopt.experimental.optim.Adam, mxopt.nn.Adam])
def test_refused_by_mindspores_faces(more: Any, family: Callable[..., Any]) -> None:
    with pytest.raises(ArrayTypeError, match=r"more than|stands for"):
        family([more])
    weight = ones()
    optimizer = family([weight])
    for _ in range(2):
        with pytest.raises(ArrayTypeError, match=r"gradient.*(more than|stands for)"):
            optimizer((more,))
        assert np.array_equal(weight, ones())


@needs_torch
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_tensors_that_are_more_than_their_memory() -> None:
    from torch.masked import masked_tensor

    for x in (
        masked_tensor(torch.ones(SHAPE), torch.ones(SHAPE, dtype=torch.bool)),
        torch.ones(SHAPE, dtype=torch.cfloat).conj(),
        torch.quantize_per_tensor(torch.ones(SHAPE), 0.1, 0, torch.qint8),
        torch.ones(SHAPE).to_sparse_csr(),
    ):
        with pytest.raises(ArrayTypeError, match="parameter 0"):
            mxopt.get_updater(mxopt.create("sgd"))(0, x, ones())


def test_things_that_are_no_arrays_are_told_what_to_write() -> None:
    class DataFrame:
        def to_numpy(self) -> np.ndarray:
            return ones()

    class Matrix:
        def tocoo(self) -> Matrix:
            return self

    updater = mxopt.get_updater(mxopt.create("sgd"))
    hints = {"None": None, "np.array": [[1.0] * 3] * 2, "to_numpy": DataFrame(), "row_sparse_array": Matrix()}
    for hint, thing in hints.items():
        for grad, weight in ((thing, ones()), (ones(), thing)):
            with pytest.raises(ArrayTypeError, match=f"parameter 0.*{hint}"):
                updater(0, grad, weight)  # type: ignore[arg-type]


def swapped(x: np.ndarray) -> np.ndarray:
    """The same numbers in the other byte order."""
    return x.astype(x.dtype.newbyteorder("S"))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_other_byte_orders_give_the_same_numbers(row: Row, rng: np.random.Generator) -> None:
    for dtype in ("float32", "float64", "float16", "bfloat16"):
        for engine in ("llvm", "numpy"):
            native, other = (mxopt.get_updater(row.make(multi_precision=True)) for _ in range(2))
            weight = rng.standard_normal(SHAPE).astype(dtype)
            theirs = swapped(weight)
            with mxopt.use_engine(engine):
                for step in range(4):
                    grad = rng.standard_normal(SHAPE).astype(dtype)
                    given: Any = swapped(grad)
                    if step == 3:
                        grad, given = (row_sparse_array((g[1:], [1]), shape=SHAPE) for g in (grad, given))  # type: ignore[assignment]
                    native(0, grad, weight)
                    other(0, given, theirs)
            assert theirs.dtype == weight.dtype.newbyteorder("S")
            found = [x.astype(x.dtype.newbyteorder("=")) for x in (theirs, *flat(other.states[0]))]
            assert_same([weight, *flat(native.states[0])], found, f"{row} {dtype} {engine}")


def test_other_byte_orders_are_saved_and_served() -> None:
    updater, weight = mxopt.get_updater(mxopt.create("dcasgd", momentum=0.5)), swapped(ones())
    updater(0, swapped(ones()), weight)
    again = mxopt.get_updater(mxopt.create("dcasgd", momentum=0.5))
    again.set_states(updater.get_states())
    assert_same(flat(again.states[0]), [x.astype(x.dtype.newbyteorder("=")) for x in flat(updater.states[0])])
    again(0, ones(), ones())
    for make in (mxopt.experimental.optim.Adam, mxopt.nn.Adam):
        for theirs, own in ((swapped(ones()), ones()), (ones(), swapped(ones()))):
            optimizer = make([theirs])
            optimizer((ones(),))
            make([own]).load_state_dict(optimizer.state_dict())
    store, out = mxopt.kvstore.create("local"), swapped(np.zeros(SHAPE, np.float32))
    store.init("w", swapped(ones()))
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.5))
    store.push("w", [swapped(ones()), ones()])
    store.pull("w", out)
    assert out.tolist() == np.zeros(SHAPE).tolist()
