"""Updates arrays that no kernel can walk, by updating copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mxopt.device import is_cupy, library_of, on_device_of, stream_of
from mxopt.engine import arrays
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Hypers


class CopiesPart:
    """One tensor whose memory is strided, or whose row-sparse gradient is made dense (unless
    `rows`). Works on contiguous copies; `make` makes the part that updates these."""

    tensor: Tensor
    hypers: Hypers
    lasting = direct = False
    address = 0

    def forbid(self, taken: np.ndarray) -> None:
        pass  # every update is checked anew

    def __init__(self, make: Callable[[Rule, Tensor], Any], rows: bool, rule: Rule, tensors: Sequence[Tensor]) -> None:
        self.make, self.rows, self.rule = make, rows, rule
        (self.tensor,) = tensors

    def bind_one(self, weight: object, grad: object) -> bool:
        return False

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        return False

    def prepare_one(self, hypers: Hypers) -> None:
        self.hypers, self.stream = hypers, stream_of(self.tensor.weight)

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> None:
        self.prepare_one(hypers[which[0]])

    def finish(self) -> None:
        t, written = self.tensor, {name for stage in self.rule.stages for name in stage.writes}
        if self.rule.reduction is not None:
            written |= {self.rule.reduction.row_state, self.rule.reduction.column_state}
        with on_device_of(t.weight), self.stream:
            if not isinstance(t.grad, RowSparse):
                grad = _copied(t.grad)
            elif self.rows:
                grad = RowSparse(_copied(t.grad.data), _copied(t.grad.indices), t.grad.shape)
            else:
                grad = t.grad.rows(0, len(t.grad))
            master = None if t.master is None else _copied(t.master)
            copy = replace(t, weight=_copied(t.weight), grad=grad, states=tuple(map(_copied, t.states)), master=master)
            part = self.make(self.rule, copy)(self.rule, [copy])
            part.prepare_one(self.hypers)
            part.finish()
            names = ("weight", "grad", *self.rule.states, "weight")  # the last is the master copy
            for name, original, new in zip(names, t.all, copy.all, strict=False):
                if name in written and new is not original:
                    original[...] = new


def _copied(array: Array) -> Any:
    """Contiguous, and as the machine has it; the same array where it is so."""
    if arrays.is_plain(array):
        return array
    if is_cupy(array):
        return library_of(array).ascontiguousarray(array)
    return np.array(array, array.dtype.newbyteorder("="), order="C")
