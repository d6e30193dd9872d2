"""Standard normal noise as an array that is never held in memory."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

BLOCK = 65536  # elements drawn together; a multiple of a kernel's piece


class Noise:
    """`shape` standard normal numbers, a pure function of `key` and of the place in the array.

    Behaves as a read-only array as far as engines ask: `shape`, `dtype`, `[...]`, and slices of `flat` that start
    at a multiple of BLOCK and are no longer.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, seed: int, index: int | str, update: int) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._key = [seed % 2**64, zlib.crc32(repr(index).encode())]
        self._update = update

    @property
    def flat(self) -> Noise:
        return self

    def __getitem__(self, item: Any) -> np.ndarray:
        if isinstance(item, slice):
            return self._block(item.start // BLOCK, item.stop - item.start)
        size = int(np.prod(self.shape))
        blocks = [self._block(b, min(BLOCK, size - b * BLOCK)) for b in range(-(-size // BLOCK))]
        return np.concatenate([np.empty(0, self.dtype), *blocks]).reshape(self.shape)

    def _block(self, number: int, length: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=self._key, counter=[0, number, self._update, 0]))
        return generator.standard_normal(length, self.dtype)
