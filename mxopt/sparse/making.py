"""Functions that make row-sparse arrays."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mxopt.device import check_bare, is_cupy, library_of, on_device_of, to_host
from mxopt.errors import ArrayError, ArrayTypeError, UnknownNameError, counted
from mxopt.sparse.array import RowSparse
from mxopt.sparse.index import RowIndex
from mxopt.sparse.initial import Initial, Table
from mxopt.sparse.slots import RowSlots
from mxopt.sparse.sums import added, numbered
from mxopt.typing import AnyArray, Array, Dtype


def zeros(stype: str, shape: int | Sequence[int], dtype: Dtype = np.float32) -> Array:
    """An array of zeros, as `mxnet.nd.sparse.zeros`: `stype` 'row_sparse' gives a RowSparse without
    rows, 'default' a NumPy array."""
    if stype not in ("default", "row_sparse"):
        raise UnknownNameError(f"zeros: an array can be 'default' or 'row_sparse', not {stype!r}")
    if stype == "default":
        return np.zeros(shape, dtype)
    return _without_rows(_shape(shape), dtype)


def of_table(table: Table, initial: Initial | None) -> RowSparse:
    """A table as a store holds it, without rows yet; `initial` has its key. Without `initial` an
    ordinary row-sparse array."""
    return RowSparse.in_slots(RowSlots(RowIndex(table.shape[0]), table.shape, table.dtype, initial))


def some_rows(x: RowSparse, which: Callable[[np.ndarray], np.ndarray]) -> RowSparse:
    """The array with only the rows whose numbers `which` selects; a table stays one."""
    data, indices = x.parts()
    mine = which(indices)
    return _as_table(RowSparse(data[mine], indices[mine], x.shape), x.initial)


def joined_rows(parts: Sequence[RowSparse]) -> RowSparse:
    """One array with the rows of several that share none; a table stays one."""
    arrays = [part.parts() for part in parts]
    data, indices = (np.concatenate(each) for each in zip(*arrays, strict=True))
    order = np.argsort(indices)
    return _as_table(RowSparse(data[order], indices[order], parts[0].shape), parts[0].initial)


def _as_table(rows: RowSparse, initial: Initial | None) -> RowSparse:
    if initial is not None:
        rows.put_in_slots(initial=initial)
    return rows


def retain(data: RowSparse, indices: AnyArray | Sequence[int]) -> RowSparse:
    """`data.retain(indices)`, as `mxnet.nd.sparse.retain`."""
    return data.retain(indices)


def row_sparse_array(arg: Array, shape: Sequence[int] | None = None, dtype: Dtype | None = None) -> RowSparse:
    """Makes a row-sparse array, as `mxnet.nd.sparse.row_sparse_array` does.

    Parameters
    ----------
    arg : (data, indices), or shape, or array
        A tuple of two arrays: `data` (k, ...) the rows, a NumPy or CuPy array; `indices` (k,) whole
        numbers: which rows they are. In any order; the rows of an index that comes several times
        are added, in the order in which they stand. Sorted indices and contiguous data are taken
        without a copy.

        A tuple of numbers is a shape: there are no rows. A dense array, or nested lists, gives the
        rows in which not all is 0. A matrix of scipy.sparse in any format, or a sparse COO tensor
        of PyTorch, gives the rows in which it has elements; what it holds twice is added.
    shape : sequence of int, optional
        The whole array's shape; without it that of `arg`, or just long enough for the largest
        index.
    dtype : dtype, optional
        Converts the data; without it the data's own, float32 for lists and shapes.

    Raises
    ------
    ArrayError
        The shapes don't fit together, or an index is out of range.
    ArrayTypeError
        The indices are no whole numbers, or are on a GPU while the data is not.
    """
    if isinstance(arg, tuple) and arg and all(isinstance(n, int | np.integer) for n in arg):
        return _without_rows(_shape(_same(arg, shape)), np.float32 if dtype is None else dtype)
    if isinstance(arg, tuple) and len(arg) == 2:
        data, indices = arg
    elif isinstance(arg, RowSparse):
        data, indices, shape = arg.data, arg.indices, arg.shape if shape is None else shape
    else:
        data, indices, shape = _parts(arg, shape)
    if is_cupy(indices) and not is_cupy(data):
        raise ArrayTypeError("row_sparse_array: the indices are on a GPU, the data is not")
    check_bare(indices, "row_sparse_array: the indices")
    library, place = library_of(data), data
    data, indices = _array(data), to_host(indices)
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
    shape = _shape(shape)
    if data.shape[1:] != shape[1:]:
        raise ArrayError(f"row_sparse_array: rows of shape {data.shape[1:]} don't fit an array of shape {shape}")
    if len(indices) and not (indices.min() >= 0 and indices.max() < shape[0]):
        wrong = indices[(indices < 0) | (indices >= shape[0])][0]
        raise ArrayError(f"row_sparse_array: index {wrong} is out of range for {counted(shape[0], 'row')}")
    data = library.ascontiguousarray(data, dtype=dtype)
    indices = np.ascontiguousarray(indices, dtype=np.int64)
    if np.any(indices[1:] <= indices[:-1]):  # merged on the host even for CuPy, for the sake of the order
        data, indices = _merged(to_host(data), indices)
    with on_device_of(place):
        return RowSparse(library.asarray(data), library.asarray(indices), shape)


def _parts(arg: Array, shape: Sequence[int] | None) -> tuple[Array, np.ndarray, Sequence[int]]:
    """Data, indices and shape of a matrix of scipy.sparse, of a tensor of PyTorch, or of a dense
    array."""
    scipy = sys.modules.get("scipy.sparse")
    torch = sys.modules.get("torch")
    if scipy is not None and scipy.issparse(arg):
        if arg.ndim != 2:
            raise ArrayError(f"row_sparse_array: takes sparse matrices of two axes, got shape {arg.shape}")
        rows = arg.tocsr()
        indices = np.flatnonzero(np.diff(rows.indptr))
        return rows[indices].toarray(), indices, _same(arg.shape, shape)
    if torch is not None and isinstance(arg, torch.Tensor) and arg.layout is torch.sparse_coo:
        return _of_torch(torch, arg.detach().coalesce(), _same(arg.shape, shape))
    dense = _array(arg)
    if not dense.ndim:
        raise ArrayTypeError(f"row_sparse_array: needs (data, indices), a shape or an array, got {arg!r:.80}")
    with on_device_of(dense):
        indices = to_host(dense.reshape(len(dense), math.prod(dense.shape[1:])).any(axis=1)).nonzero()[0]
        return dense[indices], indices, _same(dense.shape, shape)


def _of_torch(torch: Any, tensor: Array, shape: tuple[int, ...]) -> tuple[Any, np.ndarray, tuple[int, ...]]:
    values, (rows, *columns) = _values(torch, tensor.values()), tensor.indices().cpu().numpy()
    if not columns:
        return values, rows, shape
    indices, place = np.unique(rows, return_inverse=True)
    data = np.zeros((len(indices), *shape[1:]), values.dtype)
    data[(place, *columns)] = values
    return data, indices, shape


def _values(torch: Any, tensor: Array) -> np.ndarray:
    """A dense tensor of PyTorch as an array over its memory."""
    if tensor.is_cuda or tensor.layout is not torch.strided:
        raise ArrayTypeError(
            "row_sparse_array: takes PyTorch's tensors on the CPU, dense or sparse in COO form, got"
            f" {tensor.layout} on {tensor.device}"
        )
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # which NumPy's side of it doesn't know
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return tensor.numpy()  # type: ignore[no-any-return]


def _array(x: Array) -> Array:
    """`x` as an array; lists are float32, as in MXNet."""
    check_bare(x, "row_sparse_array: the data")
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _values(torch, x)
    if hasattr(x, "dtype"):
        return library_of(x).asarray(x)
    try:
        return np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise ArrayTypeError(f"row_sparse_array: needs arrays or lists of numbers, got {x!r:.80}") from error


def _without_rows(shape: tuple[int, ...], dtype: DTypeLike) -> RowSparse:
    return RowSparse(np.zeros((0, *shape[1:]), dtype), np.zeros(0, np.int64), shape)


def _shape(given: object) -> tuple[int, ...]:
    try:
        shape = tuple(map(operator.index, given if isinstance(given, Iterable) else (given,)))
    except TypeError:
        raise ArrayTypeError(f"a row-sparse array needs a shape of whole numbers, got {given!r:.80}") from None
    if not shape or min(shape) < 0:
        raise ArrayError(f"a row-sparse array needs a shape of one axis or more, got {shape}")
    return shape


def _same(own: Sequence[int], given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None and tuple(given) != tuple(own):
        raise ArrayError(f"row_sparse_array: the array has shape {tuple(own)}, asked for was {tuple(given)}")
    return tuple(own)


def _merged(data: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted by index; rows of one index added in their order."""
    ascending, places = numbered(indices)
    return added([(data, places)], len(ascending)), ascending
