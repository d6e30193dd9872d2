"""Brings the keys and values of callers into one form: a list of (key, values of that key)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError, KVStoreError, NotInitializedError, UsageError, counted
from mxopt.sparse import RowSparse, Table, row_sparse_array
from mxopt.sparse.rows import row_numbers
from mxopt.typing import AnyArray, Array, Arrays

Key = int | str
Keyed = Key | Sequence[Key]
FirstValues = Arrays | Table
RowIds = AnyArray | Sequence[Any]
Pairs = list[tuple[Key, list[Array]]]
FIRST = "first value"  # as the `what` of pairs: tables are taken too


class Keys:
    """The keys of a store: all int or all str, in the order in which they were initialised."""

    def __init__(self) -> None:
        self.kind: type | None = None
        self.order: dict[Key, int] = {}

    def pairs(self, key: Key | Sequence[Key], values: Array, what: str = "value") -> Pairs:
        """(key, its arrays) for each key of a call, in the order of the call; a key given twice
        stands once.

        Raises UsageError (an AssertionError, as MXNet's) for keys of other types, mixed keys and
        lists of different lengths; KVStoreError where the store's keys are of the other type.
        """
        if not isinstance(key, list | tuple):
            return [(self._key(key), self._arrays(key, values, what))]
        kinds = {type(self._key(k, check=False)) for k in key}
        if len(kinds) > 1:
            raise UsageError("the keys of one call must be all int or all str")
        if not isinstance(values, list | tuple) or len(values) != len(key):
            raise UsageError(f"a list of {counted(len(key), 'key')} needs a list of as many {what}s")
        found: dict[Key, list[Array]] = {}
        for k, v in zip(key, values, strict=True):
            k = self._key(k)
            if k in found and what == FIRST:
                raise KVStoreError(f"key {k!r} stands twice in one call that initialises it")
            if k in found:
                found[k] += self._arrays(k, v, what)
            else:
                found[k] = self._arrays(k, v, what)
        return list(found.items())

    def in_order(self, pairs: Pairs) -> Pairs:
        """`pairs` in the order in which MXNet's updater sees them: int keys ascending, str keys as
        initialised."""
        if len(pairs) == 1:
            return pairs
        if self.kind is int:
            return sorted(pairs, key=lambda pair: pair[0])
        return sorted(pairs, key=lambda pair: self.order[pair[0]])

    def check_new(self, keys: Iterable[object]) -> None:
        """Raises KVStoreError if one of the keys is initialised already, or is of another type than
        the store's."""
        for key in keys:
            if self._key(key) in self.order:
                raise KVStoreError(f"key {key!r} is initialised already (duplicate init): push changes its value")

    def check_broadcast(self, key: Key | Sequence[Key], value: Array) -> None:
        """Raises KVStoreError if `value` has a table, which can't be broadcast."""
        for name, (first, *_) in self.pairs(key, value, FIRST):
            check_whole(isinstance(first, Table), name)

    def add(self, key: Key) -> None:
        """Adds a new key. Raises KVStoreError if it is initialised already."""
        self.check_new([key])
        self.kind = type(key)
        self.order[key] = len(self.order)

    def need(self, pairs: Iterable[tuple[Key, object]]) -> None:
        """Raises if a key was never initialised."""
        for key, _ in pairs:
            if key not in self.order:
                raise NotInitializedError(f"key {key!r} has not been initialised: call init or broadcast first")

    def one(self, key: object, call: str) -> Key:
        """The key of a `call` that takes one. Raises UsageError for a list of them,
        NotInitializedError for a key that was never initialised."""
        if isinstance(key, list | tuple):
            raise UsageError(f"{call} takes one key, an int or a str; of several: [store.{call}(key) for key in keys]")
        found = self._key(key)
        self.need([(found, None)])
        return found

    def _key(self, key: object, check: bool = True) -> Key:
        if type(key) is self.kind:
            return key  # type: ignore[return-value]
        if type(key) is not int and type(key) is not str:  # NumPy's numbers and texts, members of an enumeration
            if not isinstance(key, int | str | bytes | np.integer) or isinstance(key, bool):
                raise UsageError(f"a key must be an int or a str, got {type(key).__name__} {key!r}")
            key = key.decode() if isinstance(key, bytes) else str.__str__(key) if isinstance(key, str) else int(key)
        if check and self.kind is not None and type(key) is not self.kind:
            raise KVStoreError(
                f"key {key!r}: this store's keys are {self.kind.__name__}, int and str don't mix in one store"
            )
        return key

    def _arrays(self, key: object, values: Array, what: str) -> list[Array]:
        if type(values) is np.ndarray:
            return [values]
        name = f"key {key!r}: {what}"
        several = isinstance(values, list | tuple)
        if what == "out":
            arrays.tell_autograd(values if several else [values])
        if several and not values:
            raise ArrayError(f"{name}: an empty list")
        return [_array(v, name, what) for v in (values if several else [values])]


def _array(value: object, name: str, what: str) -> Array:
    if isinstance(value, Table):
        if what != FIRST:
            raise ArrayTypeError(f"{name}: a table is what a key is initialised with; give a row-sparse array")
        return value
    return arrays.as_gradient(value, name)


def total(values: Sequence[Array], blocks: bool) -> Array:
    """The sum of a key's values, a new array if there are several; the only value itself otherwise.

    `blocks`: in the order of MXNet's `local` store, v0 + ((v1 + v2) + v3 + v4) and so on by four;
    else left to right, as its `device` store. 16-bit values are rounded after every addition.
    Row-sparse values give a row-sparse sum; beside a dense one they count as dense.
    """
    if len(values) == 1:
        return values[0]
    if any(v.shape != values[0].shape for v in values):
        raise ArrayError(f"values of different shapes can't be summed: {', '.join(str(v.shape) for v in values)}")
    if all(isinstance(v, RowSparse) for v in values):
        return _sparse_total(values)
    values = [v.todense() if isinstance(v, RowSparse) else v for v in values]
    first = values[0]
    if not blocks:
        result = first + values[1]
        for value in values[2:]:
            result += value
        return result
    result = first.copy()
    for k in range(1, len(values), 4):
        block = values[k]
        for value in values[k + 1 : k + 4]:
            block = block + value
        result += block
    return result


def _sparse_total(values: Sequence[Array]) -> RowSparse:
    data = np.concatenate([v.data for v in values])
    indices = np.concatenate([v.indices for v in values])
    return row_sparse_array((data, indices), shape=values[0].shape)


def check_whole(declared: bool, key: Key) -> None:
    """Raises KVStoreError if a key is `declared` a table, which is never pulled as a whole."""
    if declared:
        raise KVStoreError(
            f"key {key!r} is a table, which isn't pulled as a whole: row_sparse_pull(key, out, row_ids=...) gives the"
            " rows that you need"
        )


def check_rows(value: Array, declared: bool, key: Key) -> None:
    """Raises ArrayError if `value` can't be pushed to a key that is `declared` a table."""
    if declared and not isinstance(value, RowSparse):
        raise ArrayError(f"key {key!r} is a table, to which row-sparse arrays are pushed; got a dense one")


def check_out(out: Array, shape: tuple[int, ...], key: Key) -> None:
    """Raises ArrayError if a value of this shape can't be written into `out`."""
    if out.shape != shape:
        raise ArrayError(f"key {key!r}: the store holds shape {shape}, out has {out.shape}")
    if not (out.flags.writeable if type(out) is np.ndarray else arrays.is_writeable(out)):
        raise ArrayError(f"key {key!r}: out is read-only")


def write(value: Array, out: Array, key: Key) -> None:
    """Copies `value` into `out`, converted to its dtype. Raises ArrayError if that isn't
    possible."""
    check_out(out, value.shape, key)
    fill(out, value)


def fill(out: Array, value: Array) -> None:
    """Copies `value` into `out`, which `check_out` has accepted."""
    if type(out) is np.ndarray and type(value) is np.ndarray:
        np.copyto(out, value, casting="unsafe")
    elif isinstance(out, RowSparse):
        out[:] = value
    elif isinstance(value, RowSparse):
        value.copyto(out)
    else:
        out[...] = arrays.to_device_of(value, out)


def write_rows(out: Array, indices: np.ndarray, data: np.ndarray, row_count: int, key: Key) -> None:
    """Makes the RowSparse `out` hold the rows `data`, which nobody else has, of a value that has
    `row_count` of them."""
    if not isinstance(out, RowSparse):
        raise ArrayTypeError(f"key {key!r}: row_sparse_pull needs a row-sparse out, got {type(out).__name__}")
    if out.shape != (row_count, *data.shape[1:]):
        raise ArrayError(f"key {key!r}: the store holds shape {(row_count, *data.shape[1:])}, out has {out.shape}")
    out.assign(data.astype(out.dtype, copy=False), indices)


def with_ids(keys: Keys, key: Any, out: Array, ids: Array) -> list[tuple[Key, Array, np.ndarray]]:
    """(key, out, row numbers) for each out of a row-sparse pull, in the order of the call.

    `ids` is one array for all; or nested as `out`: for each key an array, or a list of one for each
    of its outs.
    """
    if out is None or ids is None:
        raise UsageError("row_sparse_pull needs out and row_ids")
    keys.need(keys.pairs(key, out, "out"))
    several = isinstance(key, list | tuple)
    calls = [keys.pairs(k, o, "out")[0] for k, o in (zip(key, out, strict=True) if several else [(key, out)])]
    given = _listed(ids)
    if len(given) == 1:
        given *= len(calls)
    elif not several:
        given = [given]
    if len(given) != len(calls):
        raise UsageError(f"row_sparse_pull: each of {counted(len(calls), 'key')} needs row_ids, got {len(given)}")
    found = []
    for (name, targets), mine in zip(calls, map(_listed, given), strict=True):
        if len(mine) == 1:
            mine *= len(targets)
        if len(mine) != len(targets):
            raise UsageError(
                f"row_sparse_pull of key {name!r}: a list of {counted(len(targets), 'out')} needs one array of row_ids,"
                f" or as many; got {len(mine)}"
            )
        found += [
            (name, target, row_numbers(i, f"key {name!r}: row_ids")) for target, i in zip(targets, mine, strict=True)
        ]
    return found


def _listed(ids: object) -> list[Array]:
    """The arrays of a list of arrays, or the only one; a list of numbers is an array."""
    return list(ids) if isinstance(ids, list | tuple) and ids and not np.isscalar(ids[0]) else [ids]
