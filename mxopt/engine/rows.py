"""Runs row-wise kernels: rules that keep one state for each row, and the rows of row-sparse
gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mxopt.engine import binding, jit, kernel as k
from mxopt.engine.matrices import Matrices
from mxopt.engine.native import PARALLEL, NativePart, PassesPart, address_of, in_batches
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array

LAID_OUT = 1 << 16  # pieces are laid out for at least this many rows of a row-sparse gradient


class RowsPart(NativePart):
    """Tensors all of whose rows are updated, one by one."""

    about: npt.NDArray[np.int64]
    rowwise = True

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        lengths = np.array([math.prod(t.weight.shape[1:]) for t in tensors])
        counts = np.where(lengths > 0, [self._row_count(t) for t in tensors], 0)
        # The processor prefetches consecutive rows by itself; asking for them would cost time.
        self.about = np.stack([lengths, counts, np.zeros_like(lengths)], axis=1)
        self._cut(counts, lengths)

    def _row_count(self, tensor: Tensor) -> int:
        return len(tensor.weight)

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        super()._expect(tensors)
        self.job[k.ABOUT_ROWS] = address_of(self.about)


class MatricesPart(PassesPart):
    """Tensors whose rows and columns have states."""

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        found = [Matrices.of(t.weight.shape) for t in tensors]
        pieces = [np.insert(each.pieces, 0, t, axis=1) for t, each in enumerate(found)]
        self.pieces = np.concatenate(pieces)
        self.bounds = np.concatenate([[0], np.cumsum([*map(len, pieces)])]).tolist()
        widths = np.array([each.width for each in found])
        self.batches = in_batches(np.cumsum(self.pieces[:, 2] * widths[self.pieces[:, 0]]))
        self._records = [np.empty(each.record_words) for each in found]
        real = [np.float64 if t.weight.dtype.itemsize == 8 else np.float32 for t in tensors]
        self._factors = [np.empty(m.number * m.width, r) for m, r in zip(found, real, strict=True)]
        places = zip(found, self._records, self._factors, strict=True)
        self._matrices = np.array([each.words(address_of(r), address_of(f)) for each, r, f in places])

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        super()._expect(tensors)
        self.job[k.MATRICES] = address_of(self._matrices)

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        stages = [k.Kernel(self.rule, stage, dtypes) for stage in range(len(self.rule.stages))]
        return [k.Kernel(self.rule, None, dtypes, reduces=what) for what in k.REDUCES] + stages


class Placed(RowSparse):
    """A gradient whose indices are known to be distinct positions in an array, in any order.

    Where its rows don't follow each other `addresses` has where they are, and `data` none of
    them.
    """

    addresses: np.ndarray | None = None

    def is_sound(self) -> bool:
        return True


class RowGradientPart(NativePart):
    """One tensor with a row-sparse gradient, whose rows differ from step to step."""

    shape: tuple[int, ...]
    length: int
    about: npt.NDArray[np.int64]
    lists = False
    most_rows: int = sys.maxsize  # that a gradient may have
    reaches = False  # whether it takes a gradient whose rows don't follow each other

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        super()._expect(tensors)
        (t,) = tensors
        self.shape, self.length = t.weight.shape, math.prod(t.weight.shape[1:])
        self.about = np.array([[self.length, 0, k.AHEAD // max(self.length, 1)]])
        self.job[k.ABOUT_ROWS], self.job[k.INDICES] = address_of(self.about), address_of(t.grad.indices)
        self._about = self.about.data.cast("B").cast("q")
        self.expected[0, binding.GRAD_BYTES] = self.length * t.grad.dtype.itemsize
        self.expected[0, binding.PLACED] = isinstance(t.grad, Placed)
        self._bind_rows = binding.row_binder()
        self._together: int = self.kernels[0]
        self._take(len(t.grad.indices))

    def _take(self, row_count: int) -> None:
        self._about[k.ROW_COUNT] = row_count

    def bind_one(self, weight: Array, grad: Array) -> bool:
        if not isinstance(grad, RowSparse) or grad.shape != self.shape:
            return False
        data, indices = grad.data, grad.indices
        if len(indices) > self.most_rows:
            return False
        where = grad.addresses if type(grad) is Placed else None
        given = indices if where is None else indices[:0]
        self.ids[0], self.ids[1], self.ids[2] = id(weight), id(data), id(given)
        row_count = self._bind_rows(self.address)
        if row_count < 0:
            return False
        if where is not None:
            self.job[k.INDICES], self.job[k.GRAD_ROWS] = address_of(indices), address_of(where)
            row_count = len(indices)
        if self.reaches:
            self.kernels[0] = self.job[k.KERNEL] = self._together if where is None else self._apart
        self._take(row_count)
        return True

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        return self.bind_one(*weights, *grads)

    @cached_property
    def _apart(self) -> int:
        """The kernel for rows that don't follow each other."""
        return jit.compiled(replace(self.needed[0], apart=True))


class SparsePart(RowGradientPart, RowsPart):
    """The rows that the gradient has."""

    reaches = True
    batches: npt.NDArray[np.int64]

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        super()._lay_out_pieces(tensors)  # a gradient with fewer rows uses only the first pieces
        self.batches = np.arange(len(self.pieces) + 1)
        self.most: int = int(self.pieces[0, 2]) if len(self.pieces) else 1
        self._pays = PARALLEL / len(tensors[0].all)  # elements from which the help of others does

    def _row_count(self, tensor: Tensor) -> int:
        self.most_rows: int = min(len(tensor.weight), max(LAID_OUT, 2 * len(tensor.grad.indices)))
        return self.most_rows

    def _take(self, row_count: int) -> None:
        self._about[k.ROW_COUNT] = row_count
        self.elements: int = row_count * self.length
        self.alone: Any = self.elements < self._pays
        self.job[k.N_BATCHES] = -(-row_count // self.most) if self.length else 0


class ScatteredPart(RowGradientPart):
    """All rows, under a rule that also moves those that the gradient lacks."""

    scattered = True


class ScatteredPassesPart(ScatteredPart, PassesPart):
    """`ScatteredPart` for a rule of several stages."""


class LazyLayerwisePart(SparsePart):
    """One tensor with a row-sparse gradient under a rule of two stages: the norms of the whole
    weight and gradient, then a step of the touched rows."""

    direct = reaches = False

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        super().__init__(rule, tensors)
        self.all_rows: _WholePart = _WholePart(rule, tensors)
        self.all_rows.hypers = self.hypers
        for word in (k.POINTERS, k.HYPERS, k.ABOUT_ROWS):
            self.all_rows.job[word] = self.job[word]

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        return [k.Kernel(self.rule, 1, dtypes, rowwise=True, stochastic=self.stochastic)]

    def prepare_one(self, hypers: Sequence[float]) -> None:
        self.hypers[0, : self.rule.given] = hypers
        if self.stochastic:
            self.key_words[:, k.KEY] = self._keys.now()

    def prepare(self, hypers: Sequence[Sequence[float]], which: Sequence[int]) -> None:
        self.prepare_one(hypers[which[0]])

    def finish(self) -> None:
        whole = self.all_rows
        whole.job[k.INDICES] = self.job[k.INDICES]
        whole.launch(0)
        whole.derive(0, whole.norms(0))
        self.launch(0)


class _WholePart(RowGradientPart, PassesPart):
    """All elements of the tensor, for their norms."""

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        return [k.Kernel(self.rule, 0, dtypes, rowwise=True)]
