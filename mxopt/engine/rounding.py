"""Stochastic rounding: the random bits that round the bfloat16 arrays of a parameter.

They depend on an element's place in the whole parameter, the parameter's key, the number of its
update and a seed, and on nothing else. So slices, lists, threads, engines and servers don't change
a result.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from operator import index

import ml_dtypes
import numpy as np

from mxopt.errors import ArgumentError
from mxopt.rules.words import WEYL, bfloat16_of, share
from mxopt.typing import Array

SEEDS = 2**63  # how many there are: from 0 on
_WORD = 2**64 - 1


@dataclass(frozen=True)
class Rounding:
    """How a parameter's states are rounded, and its weight if that is of bfloat16 without a master
    copy.

    Its state is saved under `key`. `update()` is the number of the next update, `seed()` the
    optimizer's seed. The array begins with element number `first` of the whole parameter. If it
    holds only some rows of it, `row_numbers` are theirs, int64.
    """

    key: int | str
    update: Callable[[], int]
    seed: Callable[[], int]
    first: int = 0
    row_numbers: np.ndarray | None = None

    def at(self, first: int) -> Rounding:
        """The rounding of a slice that begins with element number `first` of this array."""
        return replace(self, first=self.first + first)

    def of_rows(self, row_numbers: np.ndarray) -> Rounding:
        """The rounding of an array that holds the rows of these numbers."""
        return replace(self, row_numbers=row_numbers)

    def weyl(self, shape: tuple[int, ...], row_numbers: np.ndarray | None = None) -> np.ndarray:
        """The numbers of the elements of an array of this shape, or of some rows of it, times WEYL,
        modulo 2**32."""
        length = int(np.prod(shape[1:], dtype=np.int64))
        which = np.arange(shape[0] if shape else 1) if row_numbers is None else row_numbers
        which = which if self.row_numbers is None else self.row_numbers[which]
        numbers: np.ndarray = (self.first + which[:, None] * length + np.arange(length)).astype(np.uint32)
        numbers *= np.uint32(WEYL)
        return numbers.reshape(len(which), *shape[1:]) if shape else numbers.reshape(())

    def rounded(self, x: np.ndarray, weyl: np.ndarray, number: int) -> np.ndarray:
        """Rounds float32 to bfloat16; `number` is the array's number among the parameter's."""
        x = np.asarray(x, np.float32)
        words: np.ndarray
        with np.errstate(over="ignore"):  # NumPy warns of words without axes
            shares = share(number)(weyl, np.uint32(UpdateKeys([self]).now()[0]))
            words = bfloat16_of(x.view(np.uint32), shares, np.isnan(x))
        return words.astype(np.uint16).view(ml_dtypes.bfloat16)


class UpdateKeys:
    """The hash's keys for the parameters of one optimizer: each mixes the parameter's key, update
    and seed."""

    def __init__(self, roundings: Sequence[Rounding]) -> None:
        self._updates = [r.update for r in roundings]
        self._numbers = np.array([_number(r.key) for r in roundings], np.uint64)
        self._seed = roundings[0].seed
        self._of: int | None = None
        self._bases = self._numbers

    def now(self) -> np.ndarray:
        """32 bits for each parameter, for its next update. Raises TypeError or ArgumentError for a
        seed that can't be saved."""
        seed = self._seed()
        if seed != self._of:
            number = index(seed)
            if not 0 <= number < SEEDS:
                raise ArgumentError(f"a seed must be within [0, {SEEDS}), got {seed}")
            self._of, self._bases = seed, _mixed(_mixed(number) ^ self._numbers)
            self._only = int(self._bases[0])
        if len(self._updates) == 1:
            return np.array([_mixed(self._only ^ self._updates[0]()) >> 32])
        now: np.ndarray = _mixed(self._bases ^ np.array([update() for update in self._updates], np.uint64)) >> 32
        return now


def _number(key: Hashable) -> int:
    """A number for a key. NumPy's numbers and enums count as the Python number or text that they
    equal, since they are saved as that."""
    plain = str.__str__(key) if isinstance(key, str) else int(key) if isinstance(key, Integral) else key
    return zlib.crc32(repr(plain).encode())


def _mixed(x: Array) -> Array:
    """A round of splitmix64, https://doi.org/10.1145/2714064.2660195, of a number or of an array
    of uint64."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)
