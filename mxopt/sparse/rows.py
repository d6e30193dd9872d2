"""The rows of a row-sparse array, and where they are stored."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from mxopt.device import check_bare, library_of, on_device_of, to_host
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.sparse.index import RowIndex
from mxopt.sparse.initial import Initial
from mxopt.sparse.slots import RowSlots
from mxopt.typing import Array

DENSE_LIMIT = 2 << 30  # bytes of the largest dense form that is made


R = TypeVar("R", bound="Rows")


class Rows:
    """Some rows of an array of `shape`: in two arrays, or in slots while updates add to them.

    Whoever reads `data` or `indices` gets the arrays themselves, in which the rows are from then
    on.
    """

    def __init__(self, data: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> None:
        self._data = data
        self._indices = indices
        self.shape = shape
        # Where the rows are instead, from an update that adds some until they are read.
        self.slots: RowSlots | None = None

    @classmethod
    def in_slots(cls: type[R], slots: RowSlots) -> R:
        """The array that stores its rows in these slots: of a store's table, or a state of a weight
        in slots."""
        made = cls(slots.array[:0], slots.index.ids[:0], slots.shape)
        made.slots = slots
        return made

    @property
    def data(self) -> np.ndarray:
        """The rows there are (k, ...). Of a table a copy, which is read-only."""
        self._settle()
        return self._data if self.slots is None else _read_only(self.slots.ascending()[0])

    @data.setter
    def data(self, data: np.ndarray) -> None:
        self.assign(data, self.indices)

    @property
    def indices(self) -> np.ndarray:
        """Which rows these are (k,), int64, ascending. Of a table a copy, which is read-only."""
        self._settle()
        return self._indices if self.slots is None else _read_only(self.slots.ascending()[1])

    @indices.setter
    def indices(self, indices: np.ndarray) -> None:
        self.assign(self.data, indices)

    def _settle(self) -> None:
        """Moves the rows from slots into two arrays, which callers may write to. Those of a table
        stay."""
        if self.slots is not None and self.slots.initial is None:
            self.assign(*self.slots.ascending())

    def assign(self, data: Array, indices: Array) -> None:
        """Makes these arrays, without copying them, its rows. Raises ArrayError for a table."""
        self.check_no_table()
        self._data, self._indices, self.slots = data, indices, None

    def parts(self) -> tuple[Array, np.ndarray]:
        """`data` and `indices` for reading: they may be copies."""
        return (self._data, self._indices) if self.slots is None else self.slots.ascending()

    def as_they_lie(self) -> tuple[Array, np.ndarray]:
        """`parts` in any order, without a copy: rows in slots are in the order in which they
        came."""
        if self.slots is None:
            return self._data, self._indices
        return self.slots.array[: self.slots.filled], self.slots.index.ids

    @property
    def memory(self) -> Array:
        """The array that holds the rows."""
        return self._data if self.slots is None else self.slots.array

    @property
    def row_count(self) -> int:
        """The number of stored rows."""
        return len(self._indices) if self.slots is None else self.slots.index.count

    @property
    def nbytes(self) -> int:
        """The bytes of the stored rows."""
        return self.row_count * math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def initial(self) -> Initial | None:
        """The first values of rows that a table doesn't store yet; None means zeros, or that it
        isn't a table."""
        return None if self.slots is None else self.slots.initial

    def put_in_slots(self, beside: Rows | None = None, initial: Initial | None = None) -> RowSlots:
        """Moves the rows into slots: with the index of the array `beside`, if given, which then has
        the rows of both."""
        before = self.slots
        if before is not None and (beside is None or before.index is beside.put_in_slots().index):
            return before
        data, indices = (before.array[: before.filled], before.index.ids) if before else (self._data, self._indices)
        index = RowIndex(self.shape[0]) if beside is None else beside.put_in_slots().index
        made = RowSlots(index, self.shape, self.dtype, self.initial or initial, self.memory)
        made.write(to_host(indices), data)
        if beside is not None:
            beside.put_in_slots().fill()
        self._data, self._indices, self.slots = data[:0], indices[:0], made
        return made

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the data."""
        dtype: np.dtype = self.memory.dtype
        return dtype

    def is_sound(self) -> bool:
        """Whether it is still as `row_sparse_array` makes it: its parts may have been replaced or
        written to."""
        if self.slots is not None:
            return True
        if getattr(self._indices, "dtype", None) != np.int64 or not self._indices.flags.c_contiguous:
            return False
        indices = to_host(self._indices)
        if indices.ndim != 1 or getattr(self._data, "shape", None) != (len(indices), *self.shape[1:]):
            return False
        if not len(indices):
            return True
        return bool(indices[0] >= 0 and indices[-1] < self.shape[0] and (indices[1:] > indices[:-1]).all())

    def places(self, indices: np.ndarray) -> np.ndarray | None:
        """The positions in `memory` of the rows `indices` (ascending, a NumPy array); None if one
        isn't stored."""
        if self.slots is not None:
            slots = self.slots.index.find(indices)
            return slots if slots.min(initial=0) >= 0 else None
        mine = to_host(self._indices)
        if len(mine) == self.shape[0]:
            return indices
        places = np.searchsorted(mine, indices)
        if len(places) and (places[-1] == len(mine) or (mine[places] != indices).any()):
            return None
        return places

    def read(self, indices: np.ndarray, out: Array = None) -> Array:
        """The rows `indices` (ascending, a NumPy array), in `out`, a NumPy array too, or a new
        array; stores no new rows."""
        if self.slots is not None:
            return self.slots.read(indices, out)
        library, mine = library_of(self._data), to_host(self._indices)
        there = np.flatnonzero(np.isin(indices, mine, assume_unique=True))
        with on_device_of(self._data):
            data = library.zeros((len(indices), *self.shape[1:]), self.dtype)
            data[library.asarray(there)] = self._data[library.asarray(self.places(indices[there]))]
        if out is None:
            return data
        out[...] = data
        return out

    def write(self, data: Array, indices: np.ndarray) -> None:
        """Sets the rows `indices` (ascending, a NumPy array) to `data`."""
        self.put_in_slots().write(indices, data)

    def fill(self) -> None:
        """Also stores the rows that another array has added to a shared index."""
        if self.slots is not None:
            self.slots.fill()

    def add_rows(self, indices: np.ndarray) -> None:
        """Stores the rows `indices` (ascending, a NumPy array), new ones as zeros: in slots if the
        rows are in slots, else `data` and `indices` become new arrays."""
        if self.slots is not None:
            self.slots.index.add(indices)
            self.slots.fill()
            return
        if self.places(indices) is not None:
            return
        before, data = to_host(self._indices), self._data
        every = union(before, indices)
        library = library_of(data)
        with on_device_of(data):
            grown = library.zeros((len(every), *self.shape[1:]), data.dtype)
            grown[library.asarray(np.searchsorted(every, before))] = data
            self.assign(grown, library.asarray(every))

    def add_all_rows(self) -> None:
        """Stores all rows. Raises ArrayError above 2 GiB, and for a table."""
        self.check_no_table()
        if self.row_count < self.shape[0]:
            self.check_dense()
            self._settle()
            self.add_rows(np.arange(self.shape[0]))

    def check_no_table(self) -> None:
        """Raises ArrayError for a table."""
        if self.initial is not None:
            raise ArrayError(
                f"{self!r} is a table, of which only some rows are read or changed at a time: row_sparse_pull the rows"
                " that you need, and update it lazily, by row-sparse gradients and an optimizer that leaves the other"
                " rows alone"
            )

    def check_dense(self) -> None:
        """Raises ArrayError if no dense form may be made: above 2 GiB, and for a table."""
        self.check_no_table()
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > DENSE_LIMIT:
            raise ArrayError(
                f"{self!r} takes {size / 2**30:.1f} GiB as a dense array, more than the"
                f" {DENSE_LIMIT >> 30} GiB that are made: use its data and indices, or retain the rows you need"
            )


def row_numbers(ids: Any, what: str) -> np.ndarray:
    """Row numbers of any shape, order and number type, as an ascending int64 array without
    repetition. Raises ArrayTypeError if they are no whole numbers; errors call them `what`."""
    check_bare(ids, what)
    found = to_host(ids).reshape(-1)
    if found.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = found.astype(np.int64)
        fits = bool((whole == found).all())
    else:
        whole, fits = found, found.dtype.kind in "iu" or not found.size
    if not fits:
        raise ArrayTypeError(f"{what} must be whole numbers, got {found.dtype} {found[:5]}")
    return distinct(whole.astype(np.int64, copy=False))


def union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The row numbers of two ascending arrays, ascending."""
    return a if np.array_equal(a, b) else distinct(np.concatenate([a, b]))


def distinct(ids: np.ndarray) -> np.ndarray:
    """Row numbers, ascending and each once: the array itself where they are. `np.unique`, which
    hashes, takes hundreds of times as long."""
    rising = ids[1:] > ids[:-1]
    if rising.all():
        return ids
    ids = np.sort(ids, kind="stable")  # which merges what is ascending already
    found: np.ndarray = ids[np.concatenate([[True], ids[1:] != ids[:-1]])]
    return found


def _read_only(array: object) -> Array:
    if isinstance(array, np.ndarray):
        array.flags.writeable = False
    return array
