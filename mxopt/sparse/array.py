"""The row-sparse array."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mxopt.device import check_bare, library_of, on_device_of, to_host
from mxopt.errors import ArrayError, ArrayTypeError, UnknownNameError, counted
from mxopt.sparse.initial import Initial
from mxopt.sparse.rows import Rows, row_numbers
from mxopt.typing import AnyArray, Array, Dtype, State


class RowSparse(Rows):
    """Rows `indices` of an array of `shape` are `data`; all others are zero.

    Made by `row_sparse_array` or `zeros`, which see to it that `indices` (int64) is sorted without
    repetition and within range, and that `data`, of shape `(len(indices), *shape[1:])`, is
    contiguous.

    A number times it, the sum and the difference of two, and `x[:] = y` are row-sparse as in MXNet,
    and `x += y` writes into `x`; with a dense array they are dense, and `dense += x` changes the
    rows that `x` has. `x == y` and `x != y` compare element by element, and are dense arrays of
    bool. What else NumPy has takes `x.data`, or the dense form `x.asnumpy()`, which is refused
    (ArrayError) above 2 GiB.

    >>> from mxopt.sparse import row_sparse_array
    >>> x = row_sparse_array(([[1.0, 2.0], [3.0, 4.0]], [0, 3]), shape=(5, 2))
    >>> x += 2 * row_sparse_array(([[1.0, 1.0]], [4]), shape=(5, 2))
    >>> x.indices.tolist(), x.data.tolist()
    ([0, 3, 4], [[1.0, 2.0], [3.0, 4.0], [2.0, 2.0]])
    """

    stype = "row_sparse"

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    # Rows.

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` as a new dense array."""
        self.check_no_table()
        data, indices = self.parts()
        first, last = np.searchsorted(to_host(indices), (start, stop))
        with on_device_of(data):
            dense: np.ndarray = library_of(data).zeros((stop - start, *self.shape[1:]), self.dtype)
            dense[indices[first:last] - start] = data[first:last]
        return dense

    def retain(self, indices: AnyArray | Sequence[int]) -> RowSparse:
        """A new array with the rows `indices`, whole numbers in any order; rows that aren't here
        are zeros."""
        wanted = row_numbers(indices, "retain: row numbers")
        if wanted.size and (wanted[0] < 0 or wanted[-1] >= self.shape[0]):
            raise ArrayError(f"retain: needs row numbers within 0 to {self.shape[0] - 1}, got {wanted}")
        with on_device_of(self.memory):
            return RowSparse(self.read(wanted), library_of(self.memory).asarray(wanted), self.shape)

    # Other forms.

    def todense(self) -> np.ndarray:
        """A new dense array with the same values, on the same device."""
        self.check_dense()
        return self.rows(0, self.shape[0])

    def asnumpy(self) -> np.ndarray:
        """A new dense NumPy array with the same values."""
        dense: np.ndarray = to_host(self.todense())
        return dense

    def tostype(self, stype: str) -> Array:
        """A copy: dense for 'default', row-sparse for 'row_sparse'."""
        if stype not in ("default", "row_sparse"):
            raise UnknownNameError(f"tostype: a row-sparse array can be 'default' or 'row_sparse', not {stype!r}")
        return self.todense() if stype == "default" else self.copy()

    def copy(self) -> RowSparse:
        """A copy with arrays of its own."""
        return self.astype(self.dtype)

    def astype(self, dtype: Dtype, copy: bool = True) -> RowSparse:
        """A copy of another dtype; the array itself if `copy` is false and the dtype is the
        same."""
        if not copy and self.dtype == np.dtype(dtype):
            return self
        if self.initial is not None and self.slots is not None:
            return RowSparse.in_slots(self.slots.shared(dtype))
        if self.slots is not None:
            data, indices = self.slots.ascending()
            return RowSparse(data.astype(dtype, copy=False), indices, self.shape)
        return RowSparse(self._data.astype(dtype), self._indices.copy(), self.shape)

    def copyto(self, other: Array) -> Array:
        """Copies the values into `other`, dense or row-sparse, of the same shape and of any dtype;
        returns it."""
        if getattr(other, "shape", None) != self.shape:
            raise ArrayError(f"copyto: needs an array of shape {self.shape}, got {getattr(other, 'shape', other)!r}")
        check_bare(other, "copyto")
        if isinstance(other, RowSparse):
            if other is not self:
                other._take(self.astype(other.dtype))
        else:
            self.check_no_table()
            data, indices = self.parts()
            other[...] = 0
            other[indices] = data
        return other

    def _take(self, other: RowSparse) -> None:
        """Takes over the rows of `other`, which isn't used any more. A table takes those of the
        same table only."""
        if other.initial != self.initial:
            self.check_no_table()
        self._data, self._indices, self.slots = other._data, other._indices, other.slots

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ArrayError("a row-sparse array can't be a dense one without a copy")
        return self.asnumpy().astype(dtype or self.dtype, copy=False)

    # Arithmetic.

    def __getitem__(self, key: object) -> RowSparse:
        _whole(key)
        return self

    def __setitem__(self, key: object, value: Array) -> None:
        _whole(key)
        if isinstance(value, RowSparse):
            value.copyto(self)
            return
        if not _is_number(value) and getattr(value, "shape", None) != self.shape:
            raise ArrayError(f"[:] = needs an array of shape {self.shape}, got {getattr(value, 'shape', value)!r}")
        check_bare(value, "[:] =")
        self.add_all_rows()
        self.data[...] = value

    def __add__(self, other: Array) -> Array:
        return self._with(np.add, other)

    def __sub__(self, other: Array) -> Array:
        return self._with(np.subtract, other)

    def __mul__(self, other: Array) -> RowSparse:
        return self._scaled(operator.mul, other)

    def __truediv__(self, other: Array) -> RowSparse:
        return self._scaled(operator.truediv, other)

    def __neg__(self) -> RowSparse:
        return self._scaled(operator.mul, -1)

    # Comparison, as MXNet's and NumPy's: element by element. What is no array differs as a whole.

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Array:
        return self._compared(np.equal, other)

    def __ne__(self, other: object) -> Array:
        return self._compared(np.not_equal, other)

    def _compared(self, ufunc: np.ufunc, other: object) -> Array:
        if not _is_number(other) and not isinstance(other, RowSparse) and not hasattr(other, "__array_ufunc__"):
            return NotImplemented
        if not _is_number(other):
            _check_shapes(self, other)
        return ufunc(self.todense(), other.todense() if isinstance(other, RowSparse) else _plain(other))

    def __radd__(self, other: Array) -> Array:
        return _dense(np.add, other, self)

    def __rsub__(self, other: Array) -> Array:
        return _dense(np.subtract, other, self)

    __rmul__ = __mul__

    def __iadd__(self, other: Array) -> RowSparse:
        return self._changed(np.add, other)

    def __isub__(self, other: Array) -> RowSparse:
        return self._changed(np.subtract, other)

    def __imul__(self, other: Any) -> RowSparse:
        return self._rescaled(operator.mul, other)

    def __itruediv__(self, other: Any) -> RowSparse:
        return self._rescaled(operator.truediv, other)

    def _rescaled(self, operation: Callable[[Any, Any], Any], number: Any) -> RowSparse:
        scaled = self._scaled(operation, number).data
        _check_kind(scaled.dtype, self.dtype)
        self.data[...] = scaled
        return self

    def _scaled(self, operation: Callable[[Array, float], Array], number: float) -> RowSparse:
        if not _is_number(number):
            raise ArrayTypeError(f"a row-sparse array is multiplied and divided by numbers, got {number!r:.80}")
        self.check_no_table()
        data, indices = self.parts()
        return RowSparse(operation(data, _plain(number)), indices.copy(), self.shape)

    def _with(self, ufunc: np.ufunc, other: object) -> Array:
        """The sum or difference: row-sparse where `other` is, else dense."""
        self.check_no_table()
        if isinstance(other, RowSparse):
            return self.astype(np.result_type(self.dtype, other.dtype))._changed(ufunc, other)
        return _dense(ufunc, self, other)

    def _changed(self, ufunc: np.ufunc, other: object) -> RowSparse:
        """The array itself, with `other` added or subtracted in place."""
        if not isinstance(other, RowSparse):
            self[:] = _dense(ufunc, self, other)
            return self
        _check_shapes(self, other)
        _check_kind(other.dtype, self.dtype)
        other.check_no_table()
        data, indices = other.parts()
        indices = to_host(indices)
        self.add_rows(indices)
        memory = self.memory
        with on_device_of(memory):
            places = library_of(memory).asarray(self.places(indices))
            memory[places] = ufunc(memory[places], data)
        return self

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Array, out: Array = (), **options: object
    ) -> Array:
        """Handles an array or a NumPy number on the left."""
        if method == "__call__" and len(inputs) == 2 and not options:
            left, right = inputs
            if ufunc is np.multiply and not out and _is_number(left):
                return self * left
            if ufunc in (np.add, np.subtract) and isinstance(left, np.ndarray) and (not out or out[0] is left):
                return _dense(ufunc, left, right, in_place=bool(out))
            if ufunc in (np.equal, np.not_equal) and not out:
                return self._compared(ufunc, left)
        raise ArrayTypeError(
            f"numpy.{ufunc.__name__} doesn't take a row-sparse array: use its data, or its dense form asnumpy()"
        )

    def __repr__(self) -> str:
        return f"<RowSparse {'x'.join(map(str, self.shape))} {self.dtype}, {counted(self.row_count, 'row')}>"


class AsNow(RowSparse):
    """A row-sparse array as it is now, to be written while the array itself changes: its rows as
    they lie, whose memory must be kept from being changed, and their numbers."""

    def __init__(self, x: RowSparse) -> None:
        super().__init__(*x.as_they_lie(), x.shape)
        self._initial = x.initial

    @property
    def initial(self) -> Initial | None:
        return self._initial


def as_now(x: State) -> State:
    """An array or a state, with its row-sparse arrays as `AsNow`."""
    if isinstance(x, tuple | list):
        return type(x)(map(as_now, x))
    return AsNow(x) if isinstance(x, RowSparse) else x


def _dense(ufunc: np.ufunc, left: Array, right: Array, in_place: bool = False) -> Array:
    """`left` plus or minus `right`, one of which is row-sparse and the other dense or a number, as
    a dense array."""
    if _is_number(left) or _is_number(right):
        return ufunc(*(x.todense() if isinstance(x, RowSparse) else _plain(x) for x in (left, right)))
    _check_shapes(left, right)
    if isinstance(left, RowSparse):
        return ufunc(left.todense(), right)
    right.check_no_table()
    if in_place:
        _check_kind(right.dtype, left.dtype)
    data, indices = right.parts()
    result = left if in_place else left.astype(np.result_type(left.dtype, right.dtype))
    result[indices] = ufunc(result[indices], data)
    return result


def _check_shapes(left: Any, right: Any) -> None:
    for x in (left, right):
        check_bare(x, "beside a row-sparse array")
    shapes = [getattr(x, "shape", None) for x in (left, right)]
    if shapes[0] != shapes[1]:
        raise ArrayError(f"a row-sparse array goes together with arrays of its own shape; got {shapes[0]}, {shapes[1]}")


def _check_kind(dtype: np.dtype, into: np.dtype) -> None:
    """Raises ArrayTypeError if values of one dtype would be truncated in an array of the other, as
    NumPy does."""
    if not np.can_cast(np.result_type(dtype, into), into, "same_kind"):
        raise ArrayTypeError(f"{dtype} can't be written into a row-sparse or dense array of {into}: use astype")


def _is_number(x: object) -> bool:
    return isinstance(x, Number | np.number | np.bool_)


def _plain(x: object) -> Any:
    """A number as Python's own type, which doesn't widen an array's dtype."""
    if isinstance(x, np.generic):
        return x.item()
    return float(x) if isinstance(x, Number) and not isinstance(x, int | float | complex) else x  # type: ignore[arg-type]


def _whole(key: object) -> None:
    if key is not Ellipsis and not (isinstance(key, slice) and key == slice(None)):
        raise ArrayTypeError(
            f"a row-sparse array is read and written whole, as x[:]; for some rows: retain; got {key!r}"
        )
