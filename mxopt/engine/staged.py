"""Updates arrays whose memory kernels can't walk by copying a segment at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mxopt.engine import kernel as k
from mxopt.engine.native import PassesPart
from mxopt.engine.once import OncePart
from mxopt.engine.tensor import Tensor
from mxopt.rules.common import norm
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Hypers

SEGMENT = 65_536  # elements copied at a time


class StagedPart(OncePart):
    """One tensor, with strided views or a foreign byte order, updated in one thread."""

    tensor: Tensor
    scratch: list[np.ndarray]

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        self.rule = rule
        (self.tensor,) = tensors
        native = [a.dtype.newbyteorder("=") for a in self.tensor.all]
        self.scratch = [np.empty(min(SEGMENT, max(self.tensor.weight.size, 1)), d) for d in native]
        self.parts: dict[int, PassesPart] = {}

    def prepare_one(self, hypers: Hypers) -> None:
        """Lays out a job for each length of segment."""
        size = self.tensor.weight.size
        for length in {min(SEGMENT, size - first) for first in range(0, size, SEGMENT)}:
            part = self.parts[length] = PassesPart(self.rule, [self._scratch_tensor(length)])
            part.count_as(size)
            part.prepare_one(hypers)

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> None:
        self.prepare_one(hypers[which[0]])

    def finish(self) -> None:
        for stage in range(len(self.rule.stages)):
            norms = self.launch(stage)
            if stage < len(self.rule.derivations):
                for part in self.parts.values():
                    part.derive(stage, [[x] for x in norms])

    def launch(self, stage: int) -> list[float]:
        """One pass over all arrays; returns the norms."""
        size = self.tensor.weight.size
        squares: list[list[float]] = [[] for _ in range(self.rule.stages[stage].norms)]
        for first in range(0, size, SEGMENT):
            length = min(SEGMENT, size - first)
            part = self.parts[length]
            if (random := self.tensor.random) is not None:
                part.key_words[0, k.FIRST] = random.first + first
            self._load(first, length)
            part.launch(stage)
            self._store(first, length, self.rule.stages[stage].writes)
            for all_pieces, pieces in zip(squares, part.squares(stage), strict=True):
                all_pieces += pieces
        return [norm(pieces) for pieces in squares]

    def _scratch_tensor(self, length: int) -> Tensor:
        weight, grad, *rest = (s[:length] for s in self.scratch)
        master = rest.pop() if self.tensor.master is not None else None
        return replace(self.tensor, weight=weight, grad=grad, states=tuple(rest), master=master)

    def _load(self, first: int, length: int) -> None:
        for copy, original in zip(self.scratch, self.tensor.all, strict=True):
            if original.shape == self.tensor.weight.shape:
                copy[:length] = original.flat[first : first + length]
        if isinstance(self.tensor.grad, RowSparse):
            row_length = max(self.tensor.weight[:1].size, 1)
            start, stop = first // row_length, -(-(first + length) // row_length)
            rows = self.tensor.grad.rows(start, stop).reshape(-1)
            self.scratch[1][:length] = rows[first - start * row_length :][:length]

    def _store(self, first: int, length: int, writes: Sequence[str]) -> None:
        names = ("weight", "grad", *self.rule.states, "weight")  # the last is the master copy
        for name, copy, original in zip(names, self.scratch, self.tensor.all, strict=False):
            if name in writes:
                original.flat[first : first + length] = copy[:length]
