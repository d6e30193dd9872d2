"""Gradients that wait for an update by the sum of several."""

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

Row = tuple[Index, Any, Any]
Update = Callable[[list[Index], list[Any], list[Any]], None]


class Sums:
    """The gradients of each index so far, for an update at each `every`th.

    `waiting` has, by index, how many they are and their sum: an array, or a RowSparse where all are
    row-sparse, float64 for a float64 weight and else float32. Raises ArgumentError where `every` is
    no whole number above 0.
    """

    def __init__(self, every: int) -> None:
        self.every = whole("accumulate", every)
        self.waiting: dict[Index, tuple[int, Any]] = {}

    def add(self, rows: Sequence[Row], update: Update) -> None:
        """Adds gradients to their sums; calls `update(indices, sums, weights)` with those that are
        complete, which begin anew. A row is an index, a gradient and a weight.

        Raises ArrayError where a gradient doesn't fit its weight, and whatever `update` raises; no
        sum has been changed then.
        """
        complete: list[Row] = []
        others: dict[Index, tuple[int, Any, Any, Any]] = {}
        for index, grad, weight in rows:
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
            update(*([row[k] for row in complete] for k in range(3)))
        for index, _, _ in complete:
            self.waiting.pop(index, None)
        for index, (count, *parts) in others.items():
            self.waiting[index] = count, _sum(*parts)


def _sum(total: Array, grad: Array, dtype: np.dtype) -> Any:
    """The sum of both, in the memory of `total` where that is dense; a copy of `grad` without
    one."""
    if total is None:
        return grad.astype(dtype)
    total = arrays.to_device_of(total, grad)  # of loaded states
    if isinstance(total, RowSparse):
        return total + grad.astype(dtype)
    if isinstance(grad, RowSparse):
        total[grad.indices] += grad.data.astype(dtype)
    else:
        total += grad.astype(dtype, copy=False)
    return total
