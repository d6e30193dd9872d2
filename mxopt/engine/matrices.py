"""Splits an array whose rows and columns have states into matrices, one after the other, and their
rows into pieces.

Sums over columns have the same order on all engines. The rows of a piece are added one after the
other, in double, to the record of their matrix; a matrix of many rows has a record for each of its
pieces, and these are added in order. A piece has several small matrices, or at least LEAST_ROWS
rows of one, so records are far smaller than the array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PIECE_ELEMENTS = 65_536  # of a piece, unless its rows are long
LEAST_ROWS = 64  # of a piece at least, if the matrix has as many


@dataclass(frozen=True)
class Matrices:
    """`number` matrices of `height` rows and `width` columns; a piece has at most `most` rows of
    one of them, and each of them has `records`."""

    number: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Matrices:
        return cls(math.prod(shape[:-2]), shape[-2], shape[-1])

    @property
    def most(self) -> int:
        return max(LEAST_ROWS, PIECE_ELEMENTS // max(self.width, 1))

    @property
    def records(self) -> int:
        return -(-self.height // self.most)

    @property
    def pieces(self) -> np.ndarray:
        """The first row, counted over all matrices, and the number of rows of each piece."""
        if not self.number * self.height * self.width:
            return np.zeros((0, 2), np.int64)
        if self.records > 1:
            starts = np.arange(self.records) * self.most
            first = (np.arange(self.number)[:, None] * self.height + starts).reshape(-1)
            return np.stack([first, np.tile(np.minimum(self.most, self.height - starts), self.number)], axis=1)
        together = max(1, PIECE_ELEMENTS // (self.height * self.width)) * self.height
        first = np.arange(0, self.number * self.height, together)
        return np.stack([first, np.minimum(together, self.number * self.height - first)], axis=1)

    @property
    def record_words(self) -> int:
        """The size of all records. Each has the sums of squares of the columns, then the sum of the
        row states."""
        return self.number * self.records * (self.width + 1)

    def words(self, records: int, factors: int) -> tuple[int, ...]:
        """The words that a kernel reads; records and the columns' factors are at these
        addresses."""
        return self.width, self.height, self.most, self.records, records, factors
