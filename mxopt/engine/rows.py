"""Runs row-wise kernels: rules with a state a row, and the rows of row-sparse gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.engine import binding
from mxopt.engine import kernel as k
from mxopt.engine.assembly import LANES, arithmetic
from mxopt.engine.native import NativePart, PassesPart, address_of, halved
from mxopt.engine.tensor import Tensor
from mxopt.rules.common import norm
from mxopt.rules.rule import Rule, parameters
from mxopt.sparse import RowSparse

ROWS = 4096  # rows of a gradient whose norm is taken at a time


class RowsPart(NativePart):
    """Tensors whose rows are updated one by one, all of them."""

    rows = True

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        lengths = np.array([math.prod(t.weight.shape[1:]) for t in tensors])
        counts = np.where(lengths > 0, [len(t.weight) for t in tensors], 0)
        self.about = np.stack([lengths, counts, k.AHEAD // np.maximum(lengths, 1)], axis=1)
        self._cut(counts, lengths)

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        super()._expect(tensors)
        self.job[k.ROWS] = address_of(self.about)


class SparsePart(RowsPart):
    """The rows of one tensor that its row-sparse gradient has."""

    lists = False

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        super()._lay_out_pieces(tensors)  # for all rows; a gradient with less needs the first few pieces only
        self.batches = np.arange(len(self.pieces) + 1)
        self.shape = tensors[0].weight.shape

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        super()._expect(tensors)
        (t,) = tensors
        self.length, self.most = int(self.about[0, k.ROW_LENGTH]), int(self.pieces[0, 2]) if len(self.pieces) else 1
        self.expected[0, binding.GRAD_BYTES] = self.length * t.grad.dtype.itemsize
        self._about = self.about.data.cast("B").cast("q")
        self._bind_rows = binding.row_binder()
        self.job[k.INDICES] = address_of(t.grad.indices)
        self._take(len(t.grad.indices))

    def _take(self, rows: int) -> None:
        self._about[k.ROW_COUNT] = rows
        self.elements = rows * self.length
        self.job[k.N_BATCHES] = -(-rows // self.most) if self.length else 0

    def bind_one(self, weight: Any, grad: Any) -> bool:
        if not isinstance(grad, RowSparse) or grad.shape != self.shape:
            return False
        self.ids[0], self.ids[1], self.ids[2] = id(weight), id(grad.data), id(grad.indices)
        rows = self._bind_rows(self.address)
        if rows < 0:
            return False
        self._take(rows)
        return True

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        return self.bind_one(*weights, *grads)


class LazyLayerwisePart(SparsePart):
    """One tensor with a row-sparse gradient under a rule of two stages: the norms of all of weight and gradient, then a
    step of the touched rows."""

    lasting = False

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        super().__init__(rule, tensors)
        (t,) = tensors
        self.grad, self.real = t.grad, np.dtype(arithmetic(t.dtypes)).type
        self.whole = PassesPart(rule, [Tensor(t.name, t.weight, t.weight, t.states, t.master)])  # for the weight's norm

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        return [k.Kernel(self.rule, 1, dtypes, rows=True)]

    def run_one(self, hypers: Sequence[float]) -> None:
        whole = self.whole
        whole.hypers[0, : self.rule.given] = hypers
        whole.launch(0)
        weight_norm, _ = whole.norms(0)
        whole.derive(0, [weight_norm, [self._grad_norm()]])
        self.hypers[...] = whole.hypers
        self.launch(0)

    def run(self, rows: Sequence[Sequence[float]], which: Sequence[int]) -> None:
        self.run_one(rows[which[0]])

    def _grad_norm(self) -> float:
        """The norm of the second value of the first stage, summed in the order in which a dense gradient's would be."""
        function, real = self.rule.stages[0].function, self.real
        hypers = dict(zip(self.rule.hypers, map(real, self.whole.hypers[0]), strict=True))
        lanes = np.zeros(-(-math.prod(self.shape) // k.PIECE) * LANES)
        for first in range(0, len(self.grad.indices), ROWS):
            rows = self.grad.data[first : first + ROWS].reshape(-1, self.length).astype(real)
            with np.errstate(all="ignore"):
                values = {"weight": rows, "grad": rows, **hypers}
                squares = function(*(values[name] for name in parameters(function)))[1].astype(np.float64) ** 2
            place = self.grad.indices[first : first + ROWS, None] * self.length + np.arange(self.length)
            np.add.at(lanes, (place // k.PIECE * LANES + place % LANES).reshape(-1), squares.reshape(-1))
        return norm(halved(lanes.reshape(-1, LANES)).tolist())
