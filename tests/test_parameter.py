"""`Parameter`, as scripts written for a gluon Parameter ask it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mxopt
from mxopt.experimental import optim
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array


def parameter() -> Parameter:
    return Parameter(np.ones((3, 2), np.float32), "w")


def test_there_is_one_array_and_one_gradient() -> None:
    p = parameter()
    assert p.data() is p.value
    assert p.list_data() == [p.value]
    with pytest.raises(RuntimeError, match="'w' has no gradient"):
        p.list_grad()
    p.grad = np.ones((3, 2), np.float32)
    assert p.list_grad() == [p.grad]


def test_grad_req_and_requires_grad_are_one_thing() -> None:
    p = parameter()
    assert p.grad_req == "write"
    p.grad = np.ones((3, 2), np.float32)
    p.grad_req = "add"
    assert (p.grad_req, p.requires_grad) == ("add", True)
    p.grad_req = "null"
    assert (p.grad_req, p.requires_grad, p.grad) == ("null", False, None)
    trainer = mxopt.Trainer([p], "sgd", {"learning_rate": 1.0})
    trainer.step(1)
    assert (p.value == 1).all()
    p.requires_grad = True
    assert p.grad_req == "write"
    with pytest.raises(ValueError, match="'write', 'add' or 'null', got 'never'"):
        p.grad_req = "never"


def test_zero_grad_is_in_place() -> None:
    p = parameter()
    p.zero_grad()
    assert p.grad is None
    p.grad = grad = np.ones((3, 2), np.float32)
    p.zero_grad()
    assert p.grad is grad
    assert not grad.any()
    p.grad = row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2))
    p.zero_grad()
    assert (len(p.grad.indices), p.grad.shape) == (0, (3, 2))
    mxopt.get_updater(mxopt.create("adam"))(0, p.grad, p.value)


@pytest.mark.parametrize("dtype", ["float16", np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("sparse", [False, True])
def test_cast_before_training(dtype: object, sparse: bool) -> None:
    p = parameter()
    p.grad = np.ones((3, 2), np.float32)
    if sparse:
        p.grad = row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2))
    trainer = mxopt.Trainer([p], "sgd", {"learning_rate": 0.5, "multi_precision": True})
    p.cast(dtype)
    assert p.dtype == p.grad.dtype == np.dtype(dtype)
    trainer.step(1)
    assert p.value[:, 0].tolist() == ([1, 0.5, 1] if sparse else [0.5] * 3)


def test_no_dtype_but_an_optimizers() -> None:
    p = parameter()
    for dtype in ("int32", "complex64", "nonsense"):
        with pytest.raises(TypeError, match="parameter 'w'"):
            p.cast(dtype)
    assert p.dtype == np.float32


def test_who_has_taken_the_array_keeps_it() -> None:
    p = parameter()
    p.grad = np.ones((3, 2), np.float32)
    mxopt.Trainer([p], "sgd").step(1)
    q, r = parameter(), parameter()
    optimizers = optim.SGD([q], 0.1), mxopt.nn.SGD([r])
    assert optimizers
    for taken in (p, q, r):
        with pytest.raises(ValueError, match="cast it before"):
            taken.cast("float16")
        assert taken.dtype == np.float32
