"""`Parameter`, as scripts written for a gluon Parameter ask it."""

from __future__ import annotations

import copy
import pickle
import warnings

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


def test_put_grad_writes_adds_or_does_nothing() -> None:
    p, grad = parameter(), np.ones((3, 2), np.float32)
    p.put_grad(grad)
    assert p.grad is grad
    p.put_grad(2 * grad)
    assert (p.grad == 2).all()
    p.grad_req = "null"
    p.put_grad(grad)
    assert p.grad is None
    p.grad_req = "add"
    p.put_grad(grad)
    total = p.grad
    p.put_grad(3 * grad)
    assert (grad == 1).all()
    assert p.grad is total
    assert (total == 4).all()
    with pytest.raises(ValueError, match=r"has shape \(3, 2\), the gradient \(2,\)"):
        p.put_grad(np.ones(2, np.float32))
    assert (total == 4).all()


@pytest.mark.parametrize("first", ["dense", "sparse"])
@pytest.mark.parametrize("second", ["dense", "sparse"])
def test_row_sparse_gradients_are_added_up(first: str, second: str) -> None:
    p = parameter()
    p.grad_req = "add"
    for kind, row in ((first, 1), (second, 2)):
        dense = np.zeros((3, 2), np.float32)
        dense[row] = row
        p.put_grad(row_sparse_array(dense) if kind == "sparse" else dense)
    found = p.grad if first == "dense" else p.grad.asnumpy()
    assert found[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_four_gradients_added_up_make_one_step(dtype: str) -> None:
    """As one of a batch four times as large, in a Trainer and in an updater."""
    grads = np.random.default_rng(0).integers(-8, 8, (2, 4, 3, 2)).astype(dtype)  # whose sums are exact
    added, whole, updated = (mxopt.Parameter(np.ones((3, 2), dtype)) for _ in range(3))
    options = {"learning_rate": 0.5, "multi_precision": True}
    trainers = [mxopt.Trainer([p], "adam", options, clip_global_norm=1.0) for p in (added, whole)]
    updater = mxopt.get_updater(mxopt.create("adam", rescale_grad=1 / 8, **options))
    plain = mxopt.Parameter(np.ones((3, 2), dtype))
    unclipped = mxopt.Trainer([plain], "adam", options)
    for p in (added, updated):
        p.grad_req = "add"
    for four in grads:
        for grad in four:
            added.put_grad(grad)
            updated.put_grad(grad)
        whole.grad = plain.grad = four.sum(axis=0)
        for trainer in (*trainers, unclipped):
            trainer.step(8)
        updater(0, updated.grad, updated.value)
        added.zero_grad()
        updated.zero_grad()
    assert (added.value == whole.value).all()
    assert (updated.value == plain.value).all()
    assert trainers[0].optimizer.num_update == 2  # type: ignore[union-attr]


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


def test_the_sparse_gradient_of_a_tensor_is_set_to_zero_too() -> None:
    torch = pytest.importorskip("torch")
    embedding = torch.nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    p = Parameter(embedding.weight, "w")
    p.zero_grad()
    assert embedding.weight.grad.to_dense().abs().sum() == 0


def test_a_tensor_that_was_cast_is_an_array_of_its_own() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, 2, requires_grad=True)
    tensor.grad = torch.ones(3, 2)
    p = Parameter(tensor, "w")
    p.cast("float64")
    for q in (p, copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert q.dtype == q.grad.dtype == np.float64
    assert tensor.dtype == torch.float32


def test_what_holds_no_numbers_is_no_data_and_no_gradient() -> None:
    p = parameter()
    for wrong in (np.full((3, 2), None), np.full((3, 2), "1"), np.ones((3, 2), complex)):
        with pytest.raises(TypeError, match="'w'"):
            p.set_data(wrong)
    p.grad_req = "add"
    with pytest.raises(TypeError, match="'w', gradient: needs one of float16"):
        p.put_grad(np.ones((3, 2), np.int32))
    assert p.grad is None
    assert (p.value == 1).all()


@pytest.mark.parametrize("dtype", ["float16", np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("sparse", [False, True])
def test_cast_before_training(dtype: object, sparse: bool) -> None:
    p = parameter()
    p.grad = np.ones((3, 2), np.float32)
    if sparse:
        p.grad = row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2))
    trainer = mxopt.Trainer([p], "sgd", {"learning_rate": 0.5, "multi_precision": True})
    p.cast(dtype)  # type: ignore[arg-type]
    assert p.dtype == p.grad.dtype == np.dtype(dtype)  # type: ignore[call-overload]
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


def test_errors_of_a_step_say_the_parameters_name() -> None:
    p = parameter()
    p.grad = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"parameter 0 \(w\): the weight has shape"):
        mxopt.Trainer([p], "sgd").step(1)


def test_a_parameter_may_be_the_gradient_of_another() -> None:
    weight = Parameter(np.zeros(4, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5))(0, Parameter(np.ones(4, np.float32)), weight)
    assert (weight.value == -0.5).all()
