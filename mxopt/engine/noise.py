"""Standard normal noise as an array that is never held in memory."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 65536  # elements drawn together; a multiple of a kernel's piece
_of_thread = threading.local()


class Noise:
    """`shape` standard normal numbers, a pure function of a seed, of a parameter's index, of its update and of the
    place in the array. `stream()` returns seed and update; it is asked whenever noise is drawn.

    Behaves as a read-only array as far as engines ask: `shape`, `dtype`, `[...]`, and slices of `flat` that start
    at a multiple of BLOCK and are no longer.
    """

    dtype: np.dtype[Any]

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, index: int | str, stream: Callable[[], tuple[int, int]]
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._index = zlib.crc32(repr(index).encode())
        self._stream = stream

    @property
    def flat(self) -> Noise:
        return self

    def __getitem__(self, item: Any) -> np.ndarray:
        if isinstance(item, slice):
            block = np.empty(item.stop - item.start, self.dtype)
            self.draw(item.start // BLOCK, block)
            return block
        whole = np.empty(int(np.prod(self.shape)), self.dtype)
        for first in range(0, whole.size, BLOCK):
            self.draw(first // BLOCK, whole[first : first + BLOCK])
        return whole.reshape(self.shape)

    def draw(self, number: int, out: np.ndarray) -> None:
        """Writes block `number`, or as much of it as there is room for, into `out`."""
        seed, update = self._stream()
        generator = _generator()
        generator.bit_generator.state = {  # a tenth of what a new one costs
            "bit_generator": "Philox",
            "state": {
                "counter": np.array([0, number, update, 0], np.uint64),
                "key": np.array([seed % 2**64, self._index], np.uint64),
            },
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        generator.standard_normal(dtype=self.dtype, out=out)


def _generator() -> np.random.Generator:
    """This thread's own."""
    try:
        generator: np.random.Generator = _of_thread.generator
    except AttributeError:
        generator = _of_thread.generator = np.random.Generator(np.random.Philox(0))
    return generator
