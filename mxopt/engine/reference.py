"""The reference engine: calls a rule on whole NumPy arrays. Slow, and obviously right.

Tests require the same bits of all other engines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.engine import noise
from mxopt.engine.assembly import LANES
from mxopt.engine.kernel import PIECE
from mxopt.engine.matrices import Matrices
from mxopt.engine.native import halved
from mxopt.engine.once import OncePart
from mxopt.engine.rounding import Rounding
from mxopt.engine.tensor import Tensor
from mxopt.rules.common import norm
from mxopt.rules.rule import Function, Reduction, Rule, Stage, as_tuple, parameters
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Hypers, Plain


class ReferencePart(OncePart):
    """Tensors of any memory layout. `lazy` leaves alone the rows that a row-sparse gradient
    lacks."""

    def __init__(self, rule: Rule, tensors: Sequence[Tensor], lazy: bool) -> None:
        self.rule = rule
        self.tensors = tensors
        self.lazy = lazy

    def prepare_one(self, hypers: Hypers) -> None:
        self.prepare([hypers], [0])

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> None:
        self.hypers: list[list[float]] = [[1.0 * x for x in hypers[k]] for k in which]  # raises unless all are numbers

    def finish(self) -> None:
        with np.errstate(all="ignore"):
            for tensor, hypers in zip(self.tensors, self.hypers, strict=True):
                self._update(tensor, hypers)

    def _update(self, tensor: Tensor, hypers: list[float]) -> None:
        real = np.float64 if tensor.weight.dtype.itemsize == 8 else np.float32
        arrays = dict(zip(self.rule.states, tensor.states, strict=True))
        arrays["weight"] = tensor.weight if tensor.master is None else tensor.master
        originals = dict(arrays)
        if len(self.rule.stages) > 1:  # change nothing before all memory has been allocated
            arrays = {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in arrays.items()}
        hypers = [*hypers, *[math.nan] * (len(self.rule.hypers) - len(hypers))]
        if "size" in self.rule.hypers:
            hypers[self.rule.hypers.index("size")] = max(tensor.weight.size, 1)
        matrices, factors = None, dict[str, Array]()
        if self.rule.by_matrix is not None:
            matrices = Matrices.of(tensor.weight.shape)
            factors = self._renew_matrices(self.rule.by_matrix, matrices, tensor, arrays, hypers, real)
        for step, stage in enumerate(self.rule.stages):
            where, grad = self._worked_on(tensor.grad, stage)
            values: Plain = {name: array[where].astype(real) for name, array in arrays.items()}
            values |= {"grad": grad.astype(real), **factors}
            if tensor.noise is not None and self.rule.draws:
                values["noise"] = noise.whole(tensor.noise, self._weyl(tensor, tensor.noise, where), real)
            values |= {name: real(h) for name, h in zip(self.rule.hypers, hypers, strict=True)}
            writes = stage.writes
            if self.rule.by_row is not None:
                self._renew(self.rule.by_row, values, real)
                writes = (*writes, self.rule.by_row.row_state)
            results = call(stage.function, values)
            values |= zip(stage.writes, results, strict=False)
            new = [
                (arrays[name], self._stored(tensor, name, values[name], arrays[name].dtype, where)) for name in writes
            ]
            if tensor.master is not None and "weight" in writes:
                new.append((tensor.weight, values["weight"].astype(tensor.weight.dtype)))
            for array, value in new:
                array[where] = value
            if step < len(self.rule.derivations):
                norms = [norm(squares(x, matrices)) for x in results[len(stage.writes) :]]
                derived = zip(self.rule.derivations[step].names, self.rule.derive(step, norms, hypers), strict=True)
                for name, value in derived:
                    hypers[self.rule.hypers.index(name)] = value
        for name, array in arrays.items():
            if array is not originals[name]:
                originals[name][...] = array

    def _renew_matrices(
        self, reduction: Reduction, of: Matrices, tensor: Tensor, arrays: Plain, hypers: list[float], real: Any
    ) -> dict[str, Array]:
        """Renews the states of rows and columns. Returns their factors."""
        grad = tensor.grad.rows(0, len(tensor.grad)) if isinstance(tensor.grad, RowSparse) else tensor.grad
        values: Plain = {"grad": grad.astype(real)}
        values |= {name: real(h) for name, h in zip(self.rule.hypers, hypers, strict=True)}
        (x,) = call(reduction.value, values)
        if not x.size:
            return dict.fromkeys(("row_factor", "column_factor"), real(1))
        x = x.reshape(of.number, of.height, of.width).astype(np.float64)
        row_state, column_state = arrays[reduction.row_state], arrays[reduction.column_state]
        sums = _lane_sums(x.reshape(-1, of.width))
        for state, means, function in (
            (row_state, sums / of.width, reduction.row),
            (column_state, _summed(x * x, of.most) / of.height, reduction.column),
        ):
            values["mean_square"] = means.reshape(state.shape).astype(real)
            values[parameters(function)[0]] = state.astype(real)
            assert function is not None
            (state[...],) = call(function, values)
        kept = _summed(row_state.reshape(of.number, of.height, 1).astype(np.float64), of.most) / of.height
        values["mean_row"] = kept.reshape((*tensor.weight.shape[:-2], 1, 1)).astype(real)
        values |= {reduction.row_state: row_state.astype(real), reduction.column_state: column_state.astype(real)}
        assert reduction.row_factor is not None
        assert reduction.column_factor is not None
        (by_row,), (by_column,) = (call(f, values) for f in (reduction.row_factor, reduction.column_factor))
        return {"row_factor": by_row, "column_factor": by_column}

    def _stored(self, tensor: Tensor, name: str, value: np.ndarray, dtype: np.dtype, where: Any) -> np.ndarray:
        """New values, rounded to the dtype of the array that stores them."""
        if tensor.rounding is None or str(dtype) != "bfloat16":
            return value.astype(dtype)
        weyl, states = self._weyl(tensor, tensor.rounding, where), self.rule.states
        return tensor.rounding.rounded(value, weyl, states.index(name) if name in states else len(states))

    def _weyl(self, tensor: Tensor, random: Rounding, where: Any) -> np.ndarray:
        return random.weyl(tensor.weight.shape, None if where is ... else where)

    def _worked_on(self, grad: np.ndarray | RowSparse, stage: Stage) -> tuple[Any, np.ndarray]:
        """What a stage works on, as an index of rows, and its gradients. Norms are taken over all
        rows."""
        if not isinstance(grad, RowSparse):
            return ..., grad
        if (self.lazy and stage.writes) or self.rule.by_row is not None:
            return grad.indices, grad.data
        return ..., grad.rows(0, len(grad))

    def _renew(self, reduction: Reduction, values: Plain, real: type[np.floating]) -> None:
        if not values["grad"].size:
            return
        (x,) = call(reduction.value, values)
        x = x.reshape(len(x), -1)
        values["mean_square"] = (_lane_sums(x) / x.shape[1]).astype(real).reshape(values[reduction.row_state].shape)
        (values[reduction.row_state],) = call(reduction.row, values)


def call(function: Function, values: Plain) -> tuple[Array, ...]:
    """Calls a function of a rule with the values named like its parameters."""
    return as_tuple(function(*(values[name] for name in parameters(function))))


def squares(x: np.ndarray, matrices: Matrices | None = None) -> list[float]:
    """The sum of squares of each piece of an array, in the order that all engines follow."""
    with np.errstate(all="ignore"):
        if matrices is not None:
            padded = -(-matrices.width // LANES) * LANES
            rows = np.zeros((x.size // max(matrices.width, 1), padded), x.dtype)
            rows[:, : matrices.width] = x.reshape(-1, matrices.width) if x.size else 0
            return [
                float(_lane_sums(rows[first : first + count].reshape(1, -1))[0]) for first, count in matrices.pieces
            ]
        x = x.reshape(-1)
        whole = x.size // PIECE * PIECE
        return [*_lane_sums(x[:whole].reshape(-1, PIECE)), *_lane_sums(x[whole:].reshape(1, -1))]


def _summed(x: np.ndarray, most: int) -> np.ndarray:
    """The sums over the rows of matrices: over up to `most` rows at a time, in order, then over
    these sums."""
    records = [x[:, k : k + most].cumsum(1)[:, -1] for k in range(0, x.shape[1], most)]
    sums: np.ndarray = np.cumsum(records, 0)[-1]
    return sums


def _lane_sums(x: np.ndarray) -> np.ndarray:
    """The sum of squares of each row of `x`, in double: element i is added to lane i % LANES, then
    the lanes are added in halves."""
    padded = np.zeros((len(x), -(-x.shape[1] // LANES) * LANES))
    padded[:, : x.shape[1]] = x.astype(np.float64) ** 2
    lanes = np.zeros((len(x), LANES))
    for start in range(0, padded.shape[1], LANES):
        lanes += padded[:, start : start + LANES]
    return halved(lanes)
