"""Finds gradients that lie in memory which the same call writes for another tensor.

The tensors of a call are updated at the same time, so such a gradient might be read before or after
it is overwritten. Two tensors may share one gradient: it is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from mxopt.engine import arrays
from mxopt.engine.tensor import Tensor
from mxopt.errors import ArrayError
from mxopt.sparse import RowSparse
from mxopt.typing import Array

Span = tuple[int, int]  # the addresses of the first byte and of the one after the last


def taken_by(tensors: Sequence[Tensor]) -> np.ndarray:
    """The memory that an update writes, as ascending spans of addresses, shape (n, 2)."""
    return _joined(sorted(span(array) for tensor in tensors for _, array in _written(tensor)))


def check(tensors: Sequence[Tensor], taken: np.ndarray) -> None:
    """Raises ArrayError if a gradient lies in memory of another tensor; `taken` is the result of
    `taken_by`."""
    for tensor in tensors if len(tensors) > 1 else ():
        for array in _read(tensor):
            if meets(taken, *span(array)):  # or only in its own tensor, or between the elements of a view
                _check_one(tensor, array, tensors)


def apart(tensors: Sequence[Tensor]) -> bool:
    """Whether no two tensors write the same memory, so that they can be updated at the same
    time."""
    spans = sorted(span(array) for tensor in tensors for _, array in _written(tensor))
    return len(tensors) == 1 or all(stop <= start for (_, stop), (start, _) in pairwise(spans))


def meets(taken: np.ndarray, start: int, stop: int) -> bool:
    """Whether an address from `start` to before `stop` lies in the spans `taken`."""
    k = int(np.searchsorted(taken[:, 1], start, "right"))
    return k < len(taken) and bool(taken[k, 0] < stop)


def span(array: Array) -> Span:
    """The addresses of an array that isn't empty."""
    low, high = np.lib.array_utils.byte_bounds(arrays.addresses(array))
    return int(low), int(high)


def _written(tensor: Tensor) -> Iterator[tuple[str, Array]]:
    names = ["weight", *(f"state {k + 1}" for k in range(len(tensor.states))), "master copy"]
    for name, x in zip(names, (tensor.weight, *tensor.states, tensor.master), strict=True):
        array = arrays.data_of(x)
        if arrays.is_array(array) and array.size:
            yield name, array


def _read(tensor: Tensor) -> Iterator[Array]:
    parts = (tensor.grad.data, tensor.grad.indices) if isinstance(tensor.grad, RowSparse) else (tensor.grad,)
    return (array for array in parts if array.size)


def _joined(spans: Sequence[Span]) -> np.ndarray:
    joined: list[list[int]] = []
    for start, stop in spans:
        if joined and start < joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            joined.append([start, stop])
    return np.array(joined, np.int64).reshape(-1, 2)


def _check_one(tensor: Tensor, array: Array, tensors: Sequence[Tensor]) -> None:
    for other in tensors:
        for name, theirs in _written(other) if other is not tensor else ():
            if arrays.overlap(theirs, array):
                raise ArrayError(
                    f"{tensor.name}: the gradient shares memory with the {name} of {other.name}, which the same call"
                    " changes; give a copy of it, or update them in two calls"
                )
