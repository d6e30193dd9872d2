"""Runs rules one of whose states is noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mxopt.engine import kernel as k
from mxopt.engine.native import NativePart, Scalars, address_of
from mxopt.engine.noise import BLOCK, Noise
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule


class NoisyPart(NativePart):
    """One tensor. Block after block: its noise is drawn into memory of its own, and the block updated while that is in
    the cache."""

    batches: npt.NDArray[np.int64]
    place: int
    noise: Noise
    scratch: npt.NDArray[Any]
    lists = direct = False

    def __init__(self, rule: Rule, tensors: Sequence[Tensor]) -> None:
        (t,) = tensors
        ((self.place, self.noise),) = ((k, a) for k, a in enumerate(t.all) if isinstance(a, Noise))
        self.scratch = np.empty(min(BLOCK, t.weight.size), self.noise.dtype)
        states = tuple(self.scratch if state is self.noise else state for state in t.states)
        super().__init__(rule, [replace(t, states=states)])

    def _lay_out_pieces(self, tensors: Sequence[Tensor]) -> None:
        super()._lay_out_pieces(tensors)
        self.batches = np.arange(len(self.pieces) + 1)

    def prepare_one(self, hypers: Scalars) -> None:
        super().prepare_one(hypers)

    def whole(self) -> None:
        return None

    def launch(self, number: int) -> None:
        job, pointers, scratch = self.job, self.pointers, self.scratch
        for first in range(0, self.elements, BLOCK):
            length = min(BLOCK, self.elements - first)
            self.noise.draw(first // BLOCK, scratch[:length])
            pointers[0, self.place] = address_of(scratch) - first * scratch.itemsize  # element `first` is scratch[0]
            piece = first // k.PIECE
            job[k.BATCHES] = address_of(self.batches) + piece * self.batches.itemsize
            job[k.N_BATCHES] = -(-length // k.PIECE)
            self._run(self.address)
