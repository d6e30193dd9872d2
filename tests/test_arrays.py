"""Other people's arrays are updated in place, without a copy."""

from __future__ import annotations

import array as stdlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from table import ROWS

import mxopt
from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def expected(row: Any = None, steps: int = 3, dtype: Any = np.float32, **options: Any) -> np.ndarray:
    """Ones, after updates by gradients of 1/2."""
    weight = np.ones(6, dtype)
    updater = mxopt.get_updater(mxopt.create("adam", **options) if row is None else row.make(**options))
    for _ in range(steps):
        updater(0, np.full(6, 0.5, dtype), weight)
    return weight


def buffer(kind: str) -> Any:
    """Six float32 ones in one thing or another that lends its memory."""
    makers: dict[str, Callable[[], Any]] = {
        "array.array": lambda: stdlib.array("f", [1] * 6),
        "memoryview": lambda: memoryview(bytearray(np.ones(6, np.float32).tobytes())).cast("f"),
        "memoryview of an array": lambda: memoryview(np.ones(6, np.float32)),  # type: ignore[arg-type]
        "ctypes": lambda: (ctypes.c_float * 6)(*[1] * 6),
    }
    return makers[kind]()


KINDS = ["array.array", "memoryview", "memoryview of an array", "ctypes"]


@pytest.mark.parametrize("kind", KINDS)
def test_buffers(kind: str) -> None:
    weight, listed = buffer(kind), buffer(kind)
    alone, in_lists = mxopt.get_updater(mxopt.create("adam")), mxopt.get_updater(mxopt.create("adam"))
    other = np.ones(6, np.float32)
    for _ in range(3):
        grad = np.full(6, 0.5, np.float32)
        alone(0, memoryview(grad), weight)  # type: ignore[arg-type]
        in_lists([0, 1], [stdlib.array("f", grad), grad], [listed, other])
    assert np.array_equal(np.asarray(memoryview(weight)), expected())
    assert np.array_equal(np.asarray(memoryview(listed)), expected())
    assert np.array_equal(other, expected())


def test_a_memory_mapped_file(tmp_path: Path) -> None:
    weight = np.memmap(tmp_path / "weight", np.float32, "w+", shape=6)
    weight[:] = 1
    updater = mxopt.get_updater(mxopt.create("adam"))
    for _ in range(3):
        updater(0, np.full(6, 0.5, np.float32), weight)
    weight.flush()
    assert np.array_equal(np.fromfile(tmp_path / "weight", np.float32), expected())


@pytest.mark.parametrize(
    "weight",
    [bytes(24), memoryview(bytes(24)).cast("f"), memoryview(np.ones(6, np.float32)).toreadonly()],  # type: ignore[arg-type]
)
def test_buffers_that_may_not_be_written_to(weight: Any) -> None:
    before = bytes(weight)
    with pytest.raises(ArrayError, match="parameter 0"):
        mxopt.get_updater(mxopt.create("sgd"))(0, np.ones(6, np.float32), weight)
    assert bytes(weight) == before


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@needs_torch
def test_torch_tensors_share_their_memory(dtype: str) -> None:
    for row in ROWS:
        tensor = torch.nn.Parameter(torch.ones(6, dtype=getattr(torch, dtype)))
        address = tensor.data_ptr()
        assert arrays.as_array(tensor, "weight").ctypes.data == address
        updater = mxopt.get_updater(row.make(multi_precision=True))
        listed = mxopt.get_updater(row.make(multi_precision=True))
        tensors = [torch.ones(6, dtype=tensor.dtype), torch.ones(6, dtype=tensor.dtype)]
        for _ in range(3):
            tensor.grad = torch.full_like(tensor, 0.5)
            updater(0, tensor.grad, tensor)
            listed([0, 1], [tensor.grad, tensor.grad.clone()], tensors)
        numpy_dtype = getattr(ml_dtypes, dtype, dtype)
        wanted = expected(row, dtype=numpy_dtype, multi_precision=True).astype(np.float64)
        assert tensor.data_ptr() == address
        assert tensor.requires_grad
        assert np.array_equal(tensor.detach().double().numpy(), wanted), row
        assert np.array_equal(tensors[0].double().numpy(), wanted), row


@needs_torch
def test_torch_tensors_of_any_layout() -> None:
    memory = torch.ones(6, 2)
    mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5))(0, torch.ones(6), memory[:, 0])
    assert memory.sum(0).tolist() == [3.0, 6.0]
    memory = torch.ones(2, 3)
    mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5))(0, torch.arange(6.0).reshape(3, 2), memory.T)
    assert memory.tolist() == [[1.0, 0.0, -1.0], [0.5, -0.5, -1.5]]


@needs_torch
def test_a_torch_model_trains() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    inputs, targets = torch.randn(64, 4), torch.randn(64, 1)
    updater = mxopt.get_updater(mxopt.create("lamb", learning_rate=0.05))
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        parameters = list(model.parameters())
        updater(list(range(len(parameters))), [p.grad for p in parameters], parameters)
    assert losses[-1] < 0.8 * losses[0]


@needs_torch
@pytest.mark.parametrize("make", [lambda: torch.ones(6).to_sparse(), lambda: torch.ones(6, device="meta"),
                                  lambda: torch.ones(6, dtype=torch.int32), lambda: torch.ones(6, dtype=torch.cfloat),
                                  lambda: torch.ones(6).expand(6)[None].expand(2, 6)])  # fmt: skip
def test_torch_tensors_that_cannot_be_updated(make: Callable[[], Any]) -> None:
    tensor = make()
    with pytest.raises(ArrayError, match="parameter 0"):
        mxopt.get_updater(mxopt.create("sgd"))(0, np.ones(tuple(tensor.shape), np.float32), tensor)


def test_things_that_are_no_arrays() -> None:
    class Detachable:
        """Looks like a tensor of a library that isn't there."""

        def detach(self) -> Detachable:
            return self

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("no memory")

    for thing in (None, 5, "text", [1.0], {}, object(), Detachable()):
        with pytest.raises(ArrayTypeError, match=r"weight.*lends its memory"):
            arrays.as_array(thing, "weight")


def test_the_absolute_value_of_each_element() -> None:
    out = np.zeros(2, np.float32)
    assert mxopt.optimizer.NDabs(np.array([-1, 2], np.float32), out=out) is out
    assert out.tolist() == [1, 2]
    sparse = mxopt.sparse.row_sparse_array(([[-1.0]], [3]), shape=(5, 1))
    assert mxopt.optimizer.NDabs(sparse).todense().sum() == 1
    with pytest.raises(TypeError, match="data"):
        mxopt.optimizer.NDabs()
