"""Updates arrays that no kernel can walk, by updating copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mxopt.device import on_device_of, stream_of
from mxopt.engine.arrays import plain
from mxopt.engine.once import OncePart
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Hypers


class CopiesPart(OncePart):
    """One tensor whose memory is strided, or whose row-sparse gradient is made dense (unless
    `sparse`). Works on contiguous copies; `make` makes the part that updates these."""

    tensor: Tensor
    hypers: Hypers

    def __init__(
        self, make: Callable[[Rule, Tensor], Any], sparse: bool, rule: Rule, tensors: Sequence[Tensor]
    ) -> None:
        self.make, self.sparse, self.rule = make, sparse, rule
        (self.tensor,) = tensors

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
                grad = plain(t.grad)
            elif self.sparse:
                grad = RowSparse(plain(t.grad.data), plain(t.grad.indices), t.grad.shape)
            else:
                grad = t.grad.rows(0, len(t.grad))
            master = None if t.master is None else plain(t.master)
            copy = replace(t, weight=plain(t.weight), grad=grad, states=tuple(map(plain, t.states)), master=master)
            part = self.make(self.rule, copy)(self.rule, [copy])
            part.prepare_one(self.hypers)
            part.finish()
            names = ("weight", "grad", *self.rule.states, "weight")  # the last is the master copy
            for name, original, new in zip(names, t.all, copy.all, strict=False):
                if name in written and new is not original:
                    original[...] = new
