"""Runs kernels on a GPU: CuPy arrays, a list of tensors in one launch.

Everything else that a launch needs (the arrays' addresses, each tensor's hyper-parameters) is one
block of words, which is copied to the GPU first. After a stage with norms the sums of squares of
all pieces come back to the host, which adds them and derives the scalars of the next stage as it
does for NumPy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mxopt.device import is_cupy, stream_of
from mxopt.engine.aliases import meets
from mxopt.engine.copies import CopiesPart
from mxopt.engine.cuda_source import OPTIONS, THREADS, source
from mxopt.engine.kernel import FIRST, KEY, KEY_WORDS, NUMBERS, PIECE, REDUCES, Kernel
from mxopt.engine.matrices import Matrices
from mxopt.engine.rounding import Rounding, UpdateKeys
from mxopt.engine.tensor import Tensor
from mxopt.rules.common import norm
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Hypers

SHARE = 4 * THREADS  # elements of a block in stages without norms, where several blocks share a piece


@cache
def compiled(kernel: Kernel) -> Callable[..., None]:
    """`kernel` as a function of grid, block and arguments; CuPy compiles it at the first call."""
    import cupy

    launch: Callable[..., None] = cupy.RawKernel(source(kernel), kernel.name, OPTIONS)
    return launch


def needs(lazy: bool, rule: Rule, tensor: Tensor) -> Any:
    """What makes the part that can update `tensor`: a function of the rule and a list of
    tensors."""
    sparse, rowwise = isinstance(tensor.grad, RowSparse), (lazy and rule.lazy) or rule.by_row is not None
    if not tensor.plain or (sparse and not rowwise):
        return partial(CopiesPart, partial(needs, lazy), rowwise)
    if rule.by_matrix is not None:
        return CudaMatricesPart
    return CudaRowsPart if sparse or rule.by_row is not None else CudaPart


class CudaPart:
    """Contiguous tensors on one GPU, all of the same dtypes.

    Keeps the states alive, but no weight and no gradient.
    """

    words: npt.NDArray[np.int64]
    hyper_rows: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]
    hypers: npt.NDArray[np.float64]
    key_words: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    lasting = True
    lists = True
    direct = False
    address = 0

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        self.rule = rule
        self.device = tensors[0].weight.device
        self.dtypes: tuple[str, ...] = tensors[0].dtypes
        self.states: list[tuple[tuple[Array, ...], Array]] = [(t.states, t.master) for t in tensors]
        self.like: list[tuple[tuple[int, ...], np.dtype, np.dtype]] = [
            (t.weight.shape, t.weight.dtype, t.grad.dtype) for t in tensors
        ]
        n, arrays = len(tensors), len(self.dtypes)
        self.places: Array = np.cumsum([n * arrays, n, n * len(rule.hypers)]).tolist()
        self.words = np.zeros(self.places[-1] + n * KEY_WORDS, np.int64)
        table, self.hyper_rows, hypers, keys = np.split(self.words, self.places)
        self.table = table.reshape(n, arrays)
        self.hypers = hypers.view(np.float64).reshape(n, -1)
        self.key_words = keys.reshape(n, -1)
        self.stochastic: bool = tensors[0].rounding is not None
        self._lay_out_keys([t.random for t in tensors if t.random is not None])
        self.table[:] = [[a.data.ptr for a in t.all] for t in tensors]
        self.hyper_rows[:] = np.arange(n) if rule.layerwise else 0
        if "size" in rule.hypers:
            self.hypers[:, rule.hypers.index("size")] = [max(t.weight.size, 1) for t in tensors]
        self._lay_out(tensors)

    def _lay_out(self, tensors: Sequence[Tensor]) -> None:
        """Cuts the tensors into pieces."""
        import cupy

        sizes = np.array([t.weight.size for t in tensors])
        counts = -(-sizes // PIECE)
        tensor = np.repeat(np.arange(len(sizes)), counts)
        self.bounds = np.concatenate([[0], np.cumsum(counts)])  # tensor t has pieces bounds[t] to bounds[t + 1]
        first = (np.arange(len(tensor)) - self.bounds[tensor]) * PIECE
        pieces = np.stack([tensor, first, np.minimum(PIECE, sizes[tensor] - first)], axis=1)
        self.longest: int = int(pieces[:, 2].max(initial=0))
        with self.device:
            self.pieces: Array = cupy.asarray(pieces)

    def _lay_out_keys(self, roundings: Sequence[Rounding]) -> None:

        self.random: bool = bool(roundings)
        if not self.random:
            return
        self._keys, self._numbers = UpdateKeys(roundings), [r.row_numbers for r in roundings]
        self.key_words[:, FIRST] = [r.first for r in roundings]

    # Binding: the arrays of one step. See `PlanPart`.

    def forbid(self, taken: np.ndarray) -> None:
        self.taken = taken

    def bind_one(self, weight: Array, grad: Array) -> bool:
        return self._bind(0, weight, grad)

    def bind(self, weights: Sequence[Array], grads: Sequence[Array]) -> bool:
        return all(map(self._bind, range(len(self.like)), weights, grads))

    def _bind(self, t: int, weight: Array, grad: Array) -> bool:
        shape, weight_dtype, grad_dtype = self.like[t]
        if not (is_cupy(weight) and is_cupy(grad)):
            return False
        at, grad_at = weight.data.ptr, grad.data.ptr
        fits: bool = (
            at == int(self.table[t, 0])
            and weight.shape == shape == grad.shape
            and (weight.dtype, grad.dtype) == (weight_dtype, grad_dtype)
            and weight.flags.c_contiguous
            and grad.flags.c_contiguous
            and grad.device == self.device
            and (grad_at == int(self.table[t, 1]) or not meets(self.taken, grad_at, grad_at + grad.nbytes))
        )
        if fits:
            self.table[t, 1] = grad_at
        return fits

    # Running.

    def prepare_one(self, hypers: Hypers) -> None:
        self.prepare([hypers], [0])

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> None:
        self.stream: Any = stream_of(self.pieces)  # another thread may start the update, but in this thread's stream
        if self.random:
            self._round()
        if self.rule.layerwise:  # then each tensor derives scalars of its own
            self.hypers[:, : self.rule.given] = [hypers[r] for r in which]
        else:
            self.hypers[: len(hypers), : self.rule.given] = hypers
            self.hyper_rows[:] = which

    def _round(self) -> None:
        """Takes the keys of this update, and the numbers of rows, which may have changed."""
        import cupy

        self.key_words[:, KEY] = self._keys.now()
        with self.device, self.stream:
            self._numbers_there = [None if each is None else cupy.asarray(each) for each in self._numbers]
        self.key_words[:, NUMBERS] = [0 if each is None else each.data.ptr for each in self._numbers_there]

    def finish(self) -> None:
        with self.device, self.stream:
            for stage in range(len(self.rule.stages)):
                sums = self._launch(stage)
                if stage < len(self.rule.derivations):
                    self._derive(stage, sums.get())

    def squares(self, stage: int) -> list[float]:
        """Runs a stage that takes one norm; returns the sum of squares of each piece."""
        with self.device:
            sums: list[float] = self._launch(stage).get()[:, 0].tolist()
        return sums

    def _launch(self, stage: int) -> Any:
        """Runs a stage; returns the sums of squares, for each piece and norm."""
        import cupy

        norms = self.rule.stages[stage].norms
        sums = cupy.empty((len(self.pieces), norms))
        shares = 1 if norms else -(-self.longest // SHARE)
        kernel = Kernel(self.rule, stage, self.dtypes, stochastic=self.stochastic)
        self._start(kernel, (len(self.pieces), shares), THREADS, sums.data.ptr, 0, 0)
        return sums

    def _start(self, kernel: Kernel, grid: tuple[int, int], threads: int, *arguments: int) -> None:
        import cupy

        if not all(grid):
            return
        words = cupy.asarray(self.words)
        at = [words.data.ptr + words.itemsize * place for place in (0, *self.places)]
        compiled(kernel)(grid, (threads,), (self.pieces.data.ptr, *at, *arguments))

    def _derive(self, stage: int, sums: np.ndarray) -> None:
        """Writes the scalars that follow from the sums of squares of a stage."""
        at = self.rule.given + sum(len(d.names) for d in self.rule.derivations[:stage])
        spans = list(pairwise(self.bounds))
        norms = [[norm(squares[start:stop]) for start, stop in spans] for squares in sums.T.tolist()]
        for place, values in enumerate(self.rule.derive(stage, norms, self.hypers.T), at):
            self.hypers[:, place] = values


class CudaRowsPart(CudaPart):
    """One tensor, row by row: the rows of a row-sparse gradient, or all rows if the rule keeps one
    state for each."""

    lasting = False
    lists = False

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        super().__init__(rule, tensors)
        (tensor,) = tensors
        self.grad: Array = tensor.grad
        self.row_length: int = math.prod(tensor.weight.shape[1:])
        count = len(self.grad.indices) if isinstance(self.grad, RowSparse) else tensor.weight.shape[0]
        self.row_count: int | Any = count if self.row_length else 0

    def bind_one(self, weight: Array, grad: Array) -> bool:
        return False

    def bind(self, weights: Sequence[Array], grads: Sequence[Array]) -> bool:
        return False

    def _launch(self, stage: int) -> Any:
        sparse = isinstance(self.grad, RowSparse)
        if self.rule.stages[stage].norms:  # these are of all rows, and nothing is written
            dense = self.grad.rows(0, len(self.grad))
            self.table[0, 1] = dense.data.ptr
            return super()._launch(stage)
        self.table[0, 1] = (self.grad.data if sparse else self.grad).data.ptr
        shares = 1 if self.rule.by_row is not None else min(-(-self.row_length // SHARE), 65_535)  # the most CUDA takes
        threads = min(THREADS, -(-self.row_length // 32) * 32)
        indices = self.grad.indices.data.ptr if sparse else 0
        kernel = Kernel(self.rule, stage, self.dtypes, rowwise=True, stochastic=self.stochastic)
        self._start(kernel, (self.row_count, shares), threads, 0, indices, self.row_length)
        return None


class CudaMatricesPart(CudaPart):
    """Tensors whose rows and columns have states."""

    def _lay_out(self, tensors: Sequence[Tensor]) -> None:
        import cupy

        found = [Matrices.of(t.weight.shape) for t in tensors]
        pieces = [np.insert(each.pieces, 0, t, axis=1) for t, each in enumerate(found)]
        self.bounds = np.concatenate([[0], np.cumsum([*map(len, pieces)])])
        self.longest: int = max(each.width for each in found)
        with self.device:
            self.pieces: Any = cupy.asarray(np.concatenate(pieces))
            self._records = [cupy.empty(each.record_words) for each in found]
            real = [np.float64 if t.weight.dtype.itemsize == 8 else np.float32 for t in tensors]
            self._factors = [cupy.empty(m.number * m.width, r) for m, r in zip(found, real, strict=True)]
            places = zip(found, self._records, self._factors, strict=True)
            self._about = cupy.asarray(np.array([each.words(r.data.ptr, f.data.ptr) for each, r, f in places]))

    def finish(self) -> None:
        with self.device, self.stream:
            for what in REDUCES:
                self._start_all(Kernel(self.rule, None, self.dtypes, reduces=what), 0)
        super().finish()

    def _launch(self, stage: int) -> Any:
        import cupy

        sums = cupy.empty((len(self.pieces), self.rule.stages[stage].norms))
        self._start_all(Kernel(self.rule, stage, self.dtypes), sums.data.ptr)
        return sums

    def _start_all(self, kernel: Kernel, sums: int) -> None:
        threads = min(THREADS, -(-self.longest // 32) * 32)
        self._start(kernel, (len(self.pieces), 1), threads, sums, self._about.data.ptr, 0)
