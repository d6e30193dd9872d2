"""Gradient accumulation: gradients that are summed until an update uses the sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError
from mxopt.optimizer.base import Index
from mxopt.options import whole
from mxopt.sparse import RowSparse
from mxopt.typing import Array

Gradient = tuple[Index, Any, Any]  # a parameter's index, a gradient of it, and its weight
Update = Callable[[list[Index], list[Any], list[Any]], None]


class Sums:
    """Sums the gradients of each index, for an update with every `every`-th of them.

    `waiting` holds, by index, the number of gradients so far and their sum: an array, or a
    RowSparse if all of them are; of float64 for a float64 weight, else of float32. Raises
    ArgumentError if `every` isn't a whole number above 0.
    """

    def __init__(self, every: int) -> None:
        self.every = whole("accumulate", every)
        self.waiting: dict[Index, tuple[int, Any]] = {}

    def add(self, gradients: Sequence[Gradient], update: Update) -> None:
        """Adds gradients to their sums, calls `update(indices, sums, weights)` with the sums that
        are complete, and clears these.

        Raises ArrayError if a gradient doesn't fit its weight, and whatever `update` raises. Then
        no sum has changed.
        """
        complete: list[Gradient] = []
        others: dict[Index, tuple[int, Any, Any, Any]] = {}
        for index, grad, weight in gradients:
            name = f"parameter {index!r}"
            held = arrays.as_array(weight, name)
            grad = arrays.as_gradient(grad, f"{name}, grad")
            arrays.check_weight(held, name, grad=grad)
            arrays.check_grad(held, grad, name)
            if index in others or any(index == done for done, _, _ in complete):
                raise ArrayError(f"{name} stands twice in one call")
            count, total = self.waiting.get(index, (0, None))
            if total is not None and total.shape != grad.shape:
                raise ArrayError(f"{name}: the gradients so far have shape {total.shape}, this one {grad.shape}")
            dtype = np.dtype(np.float64 if held.dtype.itemsize == 8 else np.float32)
            if total is not None and total.dtype != dtype:
                raise ArrayError(f"{name}: the gradients so far were summed in {total.dtype}, its weight needs {dtype}")
            if count + 1 >= self.every:
                complete.append((index, _sum(None if total is None else total.copy(), grad, dtype), weight))
            else:
                others[index] = count + 1, total, grad, dtype
        if complete:
            update(*([each[k] for each in complete] for k in range(3)))
        for index, _, _ in complete:
            self.waiting.pop(index, None)
        for index, (count, *parts) in others.items():
            self.waiting[index] = count, _sum(*parts)


def _sum(total: Array, grad: Array, dtype: np.dtype) -> Any:
    """The sum of both, in the memory of a dense `total`; a copy of `grad` if there is no total."""
    if total is None:
        return grad.astype(dtype)
    total = arrays.to_device_of(total, grad)  # a loaded sum may be elsewhere
    if isinstance(total, RowSparse):
        return total + grad.astype(dtype)
    if isinstance(grad, RowSparse):
        total[grad.indices] += grad.data.astype(dtype)
    else:
        total += grad.astype(dtype, copy=False)
    return total
