"""Row-sparse arrays: some rows of a large table, as embedding gradients have them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mxopt.device import is_cupy, library_of, on_device_of, to_host
from mxopt.errors import ArrayError, ArrayTypeError


class RowSparse:
    """Rows `indices` of an array of `shape` are `data`; all others are zero.

    Made by `row_sparse_array`, which sees to it that `indices` (int64) is sorted without repetition and
    within range, and that `data` (len(indices), *shape[1:]) is contiguous.
    """

    stype = "row_sparse"

    def __init__(self, data: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> None:
        self.data, self.indices, self.shape = data, indices, shape

    @property
    def dtype(self) -> np.dtype:
        """Of the data."""
        return self.data.dtype

    def is_sound(self) -> bool:
        """Whether it still is as `row_sparse_array` makes it: its parts may have been exchanged or written to."""
        if getattr(self.indices, "dtype", None) != np.int64 or not self.indices.flags.c_contiguous:
            return False
        indices = to_host(self.indices)
        if indices.ndim != 1 or getattr(self.data, "shape", None) != (len(indices), *self.shape[1:]):
            return False
        if not len(indices):
            return True
        return bool(indices[0] >= 0 and indices[-1] < self.shape[0] and (indices[1:] > indices[:-1]).all())

    def todense(self) -> np.ndarray:
        """A new dense array with the same values."""
        with on_device_of(self.data):
            dense: np.ndarray = library_of(self.data).zeros(self.shape, self.dtype)
            dense[self.indices] = self.data
        return dense

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` as a new dense array."""
        first, last = np.searchsorted(self.indices, (start, stop))
        dense = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        dense[self.indices[first:last] - start] = self.data[first:last]
        return dense

    def __repr__(self) -> str:
        return f"<RowSparse {'x'.join(map(str, self.shape))} {self.dtype}, {len(self.indices)} rows>"


def row_sparse_array(
    arg: tuple[ArrayLike, ArrayLike] | RowSparse, shape: Sequence[int] | None = None, dtype: Any = None
) -> RowSparse:
    """Makes a row-sparse array from `(data, indices)`, as `mxnet.nd.sparse.row_sparse_array` does.

    Parameters
    ----------
    arg : (data, indices)
        `data` (k, ...) the rows, a NumPy or CuPy array; `indices` (k,) whole numbers: which rows they are. In any
        order; the rows of an index that comes several times are added, in the order in which they stand. Sorted
        indices and contiguous data are taken without a copy.
    shape : sequence of int, optional
        The whole array's shape; without it just long enough for the largest index.
    dtype : dtype, optional
        Converts `data`; its own dtype without it.

    Raises
    ------
    ArrayError
        The shapes don't fit together, or an index is out of range.
    ArrayTypeError
        The indices are no whole numbers, or on a GPU while the data is not.
    """
    data, indices = (arg.data, arg.indices) if isinstance(arg, RowSparse) else arg
    if is_cupy(indices) and not is_cupy(data):
        raise ArrayTypeError("row_sparse_array: the indices are on a GPU, the data is not")
    library, place = library_of(data), data
    data, indices = library.asarray(data), to_host(indices)
    if shape is None and isinstance(arg, RowSparse):
        shape = arg.shape
    if indices.size == 0:
        indices = indices.astype(np.int64)
    if indices.dtype.kind not in "iu":
        raise ArrayTypeError(f"row_sparse_array: indices must be whole numbers, got {indices.dtype}")
    if indices.ndim != 1 or data.ndim < 1 or len(data) != len(indices):
        raise ArrayError(
            f"row_sparse_array: needs one index for each row, got indices of shape {indices.shape}"
            f" and data of shape {data.shape}"
        )
    if shape is None:
        shape = (int(indices.max(initial=-1)) + 1, *data.shape[1:])
    shape = tuple(operator.index(n) for n in shape)
    if not shape or data.shape[1:] != shape[1:]:
        raise ArrayError(f"row_sparse_array: rows of shape {data.shape[1:]} don't fit an array of shape {shape}")
    if len(indices) and not (indices.min() >= 0 and indices.max() < shape[0]):
        wrong = indices[(indices < 0) | (indices >= shape[0])][0]
        raise ArrayError(f"row_sparse_array: index {wrong} is out of range for {shape[0]} rows")
    data = library.ascontiguousarray(data, dtype=dtype)
    indices = np.ascontiguousarray(indices, dtype=np.int64)
    if np.any(indices[1:] <= indices[:-1]):  # merged on the host even for CuPy, for the sake of the order
        data, indices = _merged(to_host(data), indices)
    with on_device_of(place):
        return RowSparse(library.asarray(data), library.asarray(indices), shape)


def _merged(data: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted by index; rows of one index added in their order."""
    unique, place = np.unique(indices, return_inverse=True)
    total = np.zeros((len(unique), *data.shape[1:]), data.dtype)
    first = np.unique(place, return_index=True)[1]
    total[:] = data[first]  # not 0 + data: that would turn -0 into 0
    again = np.ones(len(place), bool)
    again[first] = False
    np.add.at(total, place[again], data[again])
    return total, unique
