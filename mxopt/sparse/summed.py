"""The sum of rows that lie in several arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mxopt.sparse.array import RowSparse
from mxopt.sparse.sums import added, reached


class Summed(RowSparse):
    """The sum of `parts`, (rows, the places of these among the sums), as `sums.added` makes it.

    Of the rows that workers push most are in one of the parts only. An update that reads rows where
    they lie, by `addresses`, needs no more than the sums of the others; all else gets `data`, which
    is made then.
    """

    def __init__(
        self, parts: Sequence[tuple[np.ndarray, np.ndarray]], indices: np.ndarray, shape: tuple[int, ...]
    ) -> None:
        self._parts = parts
        self._made: np.ndarray | None = None
        self._reached: tuple[np.ndarray, np.ndarray] | None = None
        self._indices, self.shape, self.slots = indices, shape, None

    @property
    def _data(self) -> np.ndarray:
        if self._made is None:
            rows, places = zip(*self._parts, strict=True)
            in_order = np.array_equal(np.concatenate(places), np.arange(len(self._indices)))
            if not in_order:
                self._made = added(self._parts, len(self._indices))
            else:
                self._made = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return self._made

    @_data.setter
    def _data(self, data: np.ndarray) -> None:
        self._made = data

    @property
    def memory(self) -> np.ndarray:
        """The first of the arrays that hold the rows, until `data` is made."""
        return self._parts[0][0] if self._made is None else self._made

    def is_sound(self) -> bool:
        return True

    def addresses(self) -> np.ndarray | None:
        """Where each row is in memory (k,), int64, for as long as this object lives; None where
        `data` has been made, so that all see the same, or where no compiled code reads it."""
        if self._made is None and self._reached is None:
            self._reached = reached(self._parts, len(self._indices))
        return None if self._made is not None or self._reached is None else self._reached[0]
