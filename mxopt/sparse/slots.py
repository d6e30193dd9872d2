"""Storage for the rows of a row-sparse array while it grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mxopt.device import library_of, on_device_of
from mxopt.sparse.index import RowIndex
from mxopt.sparse.initial import Initial
from mxopt.sparse.room import room
from mxopt.typing import Array


class RowSlots:
    """Rows of an array of `shape`, each in the slot that `index` assigns to its number.

    Arrays that belong together, such as a weight, its states and its master copy, share the index:
    a slot is the same row in all of them.

    Attributes
    ----------
    index : RowIndex
    array : array (room, *shape[1:])
        The rows, by slot. It is another array only where it had to be copied, see `room`.
    initial : Initial or None
        What rows begin with, and what absent rows stand for; zeros without it.
    """

    def __init__(
        self,
        index: RowIndex,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        initial: Initial | None = None,
        like: Array = None,
    ) -> None:
        self.index = index
        self.shape = shape
        self.initial = initial
        self.array: Array = room(index.count, shape, np.dtype(dtype), like=like)
        self.filled: int = 0  # how many rows have their first values
        self.fill()

    def fill(self) -> None:
        """Writes the first values of rows that the index has added."""
        count = self.index.count
        if count > len(self.array):
            self.array = room(count, self.shape, self.array.dtype, self.array, self.filled, self.array)
        if self.initial is not None and self.filled < count:
            self.initial.write(self.index.ids[self.filled : count], self.array[self.filled : count])
        self.filled = count

    def read(self, ids: np.ndarray, out: Array = None) -> Array:
        """The rows `ids`, in `out` or a new array; stores no new rows."""
        slots = self.index.find(ids)
        with on_device_of(self.array):
            library = library_of(self.array)
            absent = (slots < 0).nonzero()[0]
            if not len(absent) and out is None:
                return self.array.take(library.asarray(slots), axis=0)  # which copies rows, where [] copies elements
            if not len(absent):
                return self.array.take(slots, axis=0, out=out, mode="clip")  # where that is "raise" it takes a copy
            data = library.empty((len(ids), *self.shape[1:]), self.array.dtype) if out is None else out
            if self.initial is None:
                data[...] = 0
            there = (slots >= 0).nonzero()[0]
            data[library.asarray(there)] = self.array.take(library.asarray(slots[there]), axis=0)
            if self.initial is not None:
                first = np.empty((len(absent), *self.shape[1:]), self.array.dtype)
                self.initial.write(ids[absent], first)
                data[library.asarray(absent)] = library.asarray(first)
            return data

    def write(self, ids: np.ndarray, data: Array) -> None:
        """Sets the rows `ids` to `data`."""
        slots = self.index.add(ids)
        self.fill()
        with on_device_of(self.array):
            self.array[library_of(self.array).asarray(slots)] = data

    def ascending(self) -> tuple[Array, Array]:
        """All stored rows and their numbers, ascending: new arrays, on the device of the rows."""
        ids = self.index.ids
        order = np.argsort(ids)
        with on_device_of(self.array):
            library = library_of(self.array)
            return self.array[library.asarray(order)], library.asarray(ids[order])

    def shared(self, dtype: DTypeLike) -> RowSlots:
        """A copy in `dtype` with the same index."""
        made = RowSlots(self.index, self.shape, dtype, self.initial, self.array)
        made.array[: self.filled] = self.array[: self.filled]
        return made

    def __reduce__(self) -> tuple[Callable[..., RowSlots], tuple[Any, ...]]:
        return _restored, (self.index, self.shape, self.initial, self.array[: self.filled].copy())


def _restored(index: RowIndex, shape: tuple[int, ...], initial: Initial | None, rows: Array) -> RowSlots:
    made = RowSlots(index, shape, rows.dtype, initial, rows)
    made.array[: len(rows)] = rows
    return made
