"""Runs kernels: lays out jobs in memory and hands them to the threads.

A job (`kernel.py` lists its words) says where the arrays of a list of tensors are, which
hyper-parameters each takes, and how the work is cut into pieces. It is laid out once. At each step,
`bind` puts in the addresses of the gradients, `prepare` packs the hyper-parameters in, and the
kernel is called.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt

from mxopt.engine import binding, jit, kernel as k, pages, passes, team
from mxopt.engine.rounding import Rounding, UpdateKeys
from mxopt.engine.tensor import Tensor
from mxopt.engine.threads import crew
from mxopt.rules.common import norm
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Hypers

Compiled = Callable[[int], object]  # a compiled function, of a job's address

QUICK = 16_384  # elements up to which releasing the GIL costs more than it gives
PARALLEL = 1_600_000  # elements, of all arrays together, from which the help of other threads pays (some 100 µs)
RUN = 8 * k.PIECE  # elements of a batch at most
SHARES = 8  # a batch is at most this part of what is left


def address_of(words: np.ndarray) -> int:
    return words.ctypes.data


def in_batches(elements: np.ndarray) -> np.ndarray:
    """The bounds of batches of pieces; `elements` are those of each piece and all before it.

    Memory is read best in long runs, and the last batches are short, so that no thread waits long
    for another. Small tensors go together.
    """
    bounds, done, total = [0], 0, int(elements[-1]) if len(elements) else 0
    while bounds[-1] < len(elements):
        size = min(RUN, max(k.PIECE, (total - done) // SHARES))
        bounds.append(max(bounds[-1] + 1, int(np.searchsorted(elements, done + size, "right"))))
        done = int(elements[bounds[-1] - 1])
    return np.array(bounds)


class NativePart:
    """Tensors that one launch updates: a kernel can walk their arrays from start to end, all are of
    the same dtypes, and under a rule of several stages each is at most one piece.

    Keeps the states alive, but no weight and no gradient.
    """

    pieces: npt.NDArray[np.int64]
    batches: npt.NDArray[np.int64]
    expected: npt.NDArray[np.int64]
    pointers: npt.NDArray[np.int64]
    hypers: npt.NDArray[np.float64]
    hyper_rows: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    key_words: npt.NDArray[np.int64]
    crew: Any
    lasting = direct = True
    lists = True  # takes several tensors
    rowwise = scattered = False  # which form of a kernel

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        self.rule = rule
        self.states: list[tuple[tuple[Array, ...], Array]] = [(t.states, t.master) for t in tensors]
        n, width = len(tensors), len(rule.hypers)
        self._lay_out_pieces(tensors)
        self.elements: int = sum(t.weight.size for t in tensors)
        self.alone: bool = self.elements * len(tensors[0].all) < PARALLEL  # too small for helpers to pay
        self.pointers = self._addresses(tensors)
        self.hypers = np.zeros((n, max(width, 1)))
        self.hyper_rows, self._many = np.zeros(n, np.int64), False  # whether they differ
        self.sums = np.zeros((len(self.pieces), max((s.norms for s in rule.stages), default=0)))
        self.job: array[int] = array("q", bytes(8 * k.JOB_WORDS))
        self.address: int = self.job.buffer_info()[0]
        self.job[k.PIECES], self.job[k.BATCHES] = address_of(self.pieces), address_of(self.batches)
        self.job[k.N_BATCHES] = len(self.batches) - 1
        self.job[k.POINTERS], self.job[k.HYPERS] = address_of(self.pointers), address_of(self.hypers)
        self.job[k.HYPER_ROWS], self.job[k.SUMS] = address_of(self.hyper_rows), address_of(self.sums)
        self.stochastic: bool = tensors[0].rounding is not None
        self.random: bool = tensors[0].random is not None
        if self.random:
            self._lay_out_keys([t.random for t in tensors if t.random is not None])
        self.needed: list[k.Kernel] = self._needed(tensors[0].dtypes)
        self.kernels: list[int] = [jit.compiled(kernel) for kernel in self.needed]
        self.job[k.KERNEL] = self.kernels[0]
        self._run = team.runner(release=True)
        self._quick = team.runner(release=False)
        self._pack = struct.Struct(f"{rule.given}d").pack_into
        self._hyper_bytes = self.hypers.data.cast("B")
        self._expect(tensors)
        walked = [] if self.alone or isinstance(tensors[0].grad, RowSparse) else tensors  # all of them, in each step
        self._settling = pages.settling(self.pointers, np.array([[a.nbytes for a in t.all] for t in walked]))

    def _addresses(self, tensors: Sequence[Tensor]) -> npt.NDArray[np.int64]:
        return np.array([[a.ctypes.data for a in t.all] for t in tensors], np.int64)

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        """The kernels, in the order in which they are launched."""
        return [k.Kernel(self.rule, None, dtypes, self.rowwise, self.scattered, self.stochastic)]

    def _lay_out_keys(self, roundings: Sequence[Rounding]) -> None:
        self._keys, self._numbers = UpdateKeys(roundings), [r.row_numbers for r in roundings]
        places = [(0, r.first, 0 if r.row_numbers is None else address_of(r.row_numbers)) for r in roundings]
        self.key_words = np.array(places, np.int64)
        self.job[k.KEYS] = address_of(self.key_words)

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        self._cut(np.array([t.weight.size for t in tensors]), np.ones(len(tensors), np.int64))

    def _cut(self, counts: np.ndarray, lengths: np.ndarray) -> None:
        """Cuts `counts[t]` parts of `lengths[t]` elements, of each tensor t, into pieces."""
        most = np.maximum(1, k.PIECE // np.maximum(lengths, 1))  # parts in a piece
        pieces = -(-counts // most)
        tensor = np.repeat(np.arange(len(counts)), pieces)
        bounds = np.concatenate([[0], np.cumsum(pieces)])
        self.bounds: Any = bounds.tolist()  # tensor t has pieces bounds[t] to bounds[t + 1]
        first = (np.arange(len(tensor)) - bounds[tensor]) * most[tensor]
        parts = np.minimum(most[tensor], counts[tensor] - first)
        self.pieces = np.stack([tensor, first, parts], axis=1)
        self.batches = in_batches(np.cumsum(parts * lengths[tensor]))

    # Binding: the arrays of one step. See `PlanPart`.

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        """Writes down what `binding.py` is to expect."""
        self.keep: list[np.ndarray] = []  # what addresses point into
        words = []
        for t in tensors:
            weight, grad = t.weight, t.grad
            shape = np.array(weight.shape, np.int64)
            words.append(
                (id(weight.dtype), id(grad.dtype), weight.ndim, address_of(shape))
                + (weight.size * grad.dtype.itemsize, len(t.all), False)
            )
            self.keep.append(shape)
        self.expected = np.array(words, np.int64)
        self.dtypes: list[tuple[np.dtype, np.dtype]] = [
            (t.weight.dtype, t.grad.dtype) for t in tensors
        ]  # keeps the ids alive
        self.alike: bool = all(weight == grad for weight, grad in self.dtypes)
        self.ids: array[int] = array("q", bytes(24))  # of a single weight and its gradient (of its data and indices)
        self.job[k.WEIGHT_IDS], self.job[k.EXPECTED] = self.ids.buffer_info()[0], address_of(self.expected)
        self.job[k.GRAD_IDS] = self.job[k.WEIGHT_IDS] + 8
        self.job[k.N_TENSORS] = len(tensors)
        self.job[k.OWNER] = get_ident()
        self._bind = binding.binder()

    def forbid(self, taken: np.ndarray) -> None:
        self.taken = taken
        self.job[k.TAKEN], self.job[k.N_TAKEN] = address_of(taken), len(taken)

    def bind_one(self, weight: object, grad: object) -> bool:
        self.ids[0], self.ids[1] = id(weight), id(grad)
        return bool(self._bind(self.address))

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        n = len(weights)
        # An array of objects is an array of their addresses, and the fastest way to get them.
        held, given = np.fromiter(weights, object, n), np.fromiter(grads, object, n)
        bind = binding.list_binder()
        self.job[k.WEIGHT_IDS], self.job[k.GRAD_IDS] = id(held), id(given)  # no other thread comes before they are read
        return bool(bind(self.address))

    def bind_at(self, places: Sequence[int]) -> bool:
        """`bind` for gradients at these addresses. The caller guarantees that each is contiguous
        and of its weight's dtype and size, and that the weights are where they were."""
        if self.rowwise or self.scattered or not self.alike:
            return False
        given = array("q", places)
        return bool(binding.place_binder()(self.address, given.buffer_info()[0]))

    # Running.

    def prepare_one(self, hypers: Hypers) -> Compiled | None:
        """`prepare` for the only tensor."""
        self._pack(self._hyper_bytes, 0, *hypers)
        if self.random:
            self.key_words[:, k.KEY] = self._keys.now()
        return self._quick if self.elements <= QUICK else self.whole()

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> Compiled | None:
        """Takes the hyper-parameters: `hypers[which[t]]` for tensor t. Returns the function that
        does all of the update in one call, of `address`; None if it takes several, which
        `finish` makes."""
        if len(hypers) == 1:
            self._pack(self._hyper_bytes, 0, *hypers[0])
        else:
            self._put(hypers)
        if self._many or len(hypers) > 1:
            self._many = len(hypers) > 1
            self.hyper_rows[:] = which
        if self.random:
            self.key_words[:, k.KEY] = self._keys.now()
        return self.whole()

    def _put(self, hypers: Sequence[Hypers]) -> None:
        """Stores hyper-parameters. Raises struct.error for anything but numbers."""
        for at, each in zip(range(0, self.hypers.nbytes, self.hypers.strides[0]), hypers, strict=False):
            self._pack(self._hyper_bytes, at, *each)

    def whole(self) -> Compiled | None:
        """What does all in one call."""
        if self.elements <= QUICK:
            return self._quick
        self._before_long()
        return self._run

    def finish(self) -> None:
        """Does what `prepare` has prepared."""
        self.launch(0)

    def launch(self, number: int) -> None:
        """One pass over all arrays."""
        self.job[k.KERNEL] = self.kernels[number]
        self._before_long()
        self._run(self.address)

    def _before_long(self) -> None:
        """Gives the next call the help of the crew, and large pages, if that pays."""
        if not self.alone:
            self.crew = crew()  # kept for the call
            self.job[k.CREW] = self.crew.ready()
            next(self._settling, None)


class PassesPart(NativePart):
    """Tensors of more than a piece under a rule of several stages: a pass over all of them for each
    stage, and in between the scalars that follow from each tensor's norms."""

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        super().__init__(rule, tensors)
        self.hyper_rows[:] = np.arange(len(tensors))
        self.count_as(np.array([t.weight.size for t in tensors]))

    def count_as(self, sizes: np.ndarray | int) -> None:
        """Sets the number of elements that the rule is told of each tensor, if it asks."""
        if "size" in self.rule.hypers:
            self.hypers[:, self.rule.hypers.index("size")] = np.maximum(sizes, 1)

    @cached_property
    def _passes(self) -> Compiled:
        """All passes in one call."""
        return passes.compiled(tuple(self.needed))

    def _needed(self, dtypes: tuple[str, ...]) -> list[k.Kernel]:
        form = self.rowwise, self.scattered, self.stochastic
        return [k.Kernel(self.rule, stage, dtypes, *form) for stage in range(len(self.rule.stages))]

    def prepare_one(self, hypers: Hypers) -> Compiled | None:
        self._pack(self._hyper_bytes, 0, *hypers)
        if self.random:
            self.key_words[:, k.KEY] = self._keys.now()
        return self.whole()

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> Compiled | None:
        if len(hypers) == 1:
            self._put(hypers)
            self.hypers[1:, : self.rule.given] = self.hypers[0, : self.rule.given]
        else:
            self._put([hypers[r] for r in which])
        if self.random:
            self.key_words[:, k.KEY] = self._keys.now()
        return self.whole()

    def whole(self) -> Compiled | None:
        self._before_long()
        return self._passes

    def finish(self) -> None:
        self.whole()
        self._passes(self.address)

    def squares(self, stage: int) -> list[list[float]]:
        """The sums of squares of a stage: for each norm a list over pieces."""
        count = self.rule.stages[stage].norms
        if not count:
            return []
        flat = self.sums.reshape(-1)[: len(self.pieces) * count]
        return flat.reshape(-1, count).T.tolist()

    def norms(self, stage: int) -> list[list[float]]:
        """The norms after a stage: for each a list over tensors."""
        return [[norm(x[a:b]) for a, b in pairwise(self.bounds)] for x in self.squares(stage)]

    def derive(self, stage: int, norms: Sequence[Sequence[float]]) -> None:
        """Writes the scalars that follow from the norms of each tensor after a stage."""
        at = self.rule.given + sum(len(d.names) for d in self.rule.derivations[:stage])
        for place, values in enumerate(self.rule.derive(stage, norms, self.hypers.T), at):
            self.hypers[:, place] = values


def halved(lanes: np.ndarray) -> np.ndarray:
    """The sum of each row of LANES numbers, in the order of the kernels: adds the upper half to the
    lower half until one number is left."""
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]
