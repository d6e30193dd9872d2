"""The keys that servers hold, as a worker knows them, and checks of the arrays that callers give
for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.kvstore.exchange import PLANS, Item, KeyInfo, plan
from mxopt.kvstore.placement import layout, layout_by_rows
from mxopt.kvstore.values import Key, Keys, check_out, check_rows, check_whole, total
from mxopt.sparse import RowSparse, Table
from mxopt.typing import Array


class Held:
    """The keys of a job with `servers` servers; arrays of `bound` elements or more lie on all of
    them.

    Attributes
    ----------
    keys : Keys
    infos : dict
        What is known of each key.
    bound : int
        Worker 0's, once it has given values: all workers have to place them alike.
    """

    def __init__(self, servers: int, bound: int) -> None:
        self.keys: Keys = Keys()
        self.infos: dict[Key, KeyInfo] = {}
        self._servers = servers
        self.bound: int = bound
        self._plans: dict[tuple[Key, ...], list[Item]] = {}

    def info(self, key: Key, array: np.ndarray, whole: bool) -> KeyInfo:
        """The KeyInfo of a key with this first value. `whole`: one server holds all of it."""
        shape = array.shape
        placed = layout(key, shape, array.itemsize, self._servers, self.bound, whole)
        return KeyInfo(key, array.dtype, shape, math.prod(shape), placed)

    def info_by_rows(self, key: Key, table: Table, declared: bool, whole: bool) -> KeyInfo:
        """The same for a key that is stored by rows."""
        placed = layout_by_rows(key, table.shape, self._servers, whole)
        return KeyInfo(key, table.dtype, table.shape, math.prod(table.shape), placed, table=table, declared=declared)

    def add(self, info: KeyInfo) -> None:
        """Adds a new key."""
        self.keys.add(info.key)
        self.infos[info.key] = info

    def plain(self, key: Any, values: Array) -> dict[Key, Array] | None:
        """Keys and arrays if they are exactly as the servers hold them, the usual case; else
        None."""
        if type(values) is np.ndarray:
            info = self.infos.get(key) if type(key) in (int, str) else None
            return (
                {key: values}
                if info is not None and values.shape == info.shape and values.dtype == info.dtype and not info.table
                else None
            )
        if type(key) is not list or type(values) is not list or len(key) != len(values):
            return None
        try:
            infos = [self.infos[k] for k in key]
            for info, v in zip(infos, values, strict=True):
                if type(v) is not np.ndarray or v.shape != info.shape or v.dtype != info.dtype or info.table:
                    return None
        except (KeyError, TypeError):
            return None
        found = dict(zip(key, values, strict=True))
        return found if len(found) == len(key) else None

    def sums(self, keys: Key | Sequence[Key], given: Array, blocks: bool) -> dict[Key, Array]:
        """The sum of each key's values; `blocks` as for `total`. Raises if they can't be pushed."""
        plain = self.plain(keys, given)
        if plain is not None:
            return plain
        pairs = self.keys.pairs(keys, given)
        self.keys.need(pairs)
        found: dict[Key, Array] = {}
        for key, values in self.keys.in_order(pairs):
            value = values[0] if len(values) == 1 else total(values, blocks)
            if arrays.is_cupy(value):
                value = value.get()
            if not value.dtype.isnative:
                value = value.astype(value.dtype.newbyteorder("="))
            info = self.infos[key]
            if value.shape != info.shape:
                raise ArrayError(f"key {key!r}: the servers hold shape {info.shape}, pushed was {value.shape}")
            if value.dtype != info.dtype:
                raise ArrayTypeError(f"key {key!r}: the servers hold {info.dtype}, pushed was {value.dtype}")
            if info.layout.by_rows and not isinstance(value, RowSparse):
                check_rows(value, info.declared, key)
                value = RowSparse(np.ascontiguousarray(value), np.arange(len(value)), value.shape)
            found[key] = value
        return found

    def outs(self, keys: Key | Sequence[Key], given: Array) -> dict[Key, list[Array]]:
        """The dense outs of each key. Raises if they can't be written."""
        plain = self.plain(keys, given)
        if plain is not None and all(out.flags.writeable for out in plain.values()):
            return {key: [out] for key, out in plain.items()}
        pairs = self.keys.pairs(keys, given, "out")
        self.keys.need(pairs)
        found: dict[Key, list[Array]] = {}
        for key, outs in pairs:
            info = self.infos[key]
            shape = info.shape
            check_whole(info.declared, key)
            dense = [o for o in outs if not isinstance(o, RowSparse)]
            for out in dense:
                check_out(out, shape, key)
            if dense and info.layout.by_rows:
                RowSparse(np.empty((0, *shape[1:]), info.dtype), np.empty(0, np.int64), shape).check_dense()
            if dense:
                found[key] = dense
        return found

    def push(self, keys: Iterable[Key]) -> int:
        """Counts a push of these keys; returns the highest of their rounds."""
        highest = 0
        for key in keys:
            info = self.infos[key]
            info.round += 1
            if info.round > highest:
                highest = info.round
        return highest

    def items(self, keys: tuple[Key, ...]) -> list[Item]:
        """The messages for these keys; the keys of a message share one round."""
        rounds = {self.infos[key].round for key in keys}
        if len(rounds) <= 1:
            return self._items(keys)
        parts = [tuple(key for key in keys if self.infos[key].round == each) for each in sorted(rounds)]
        return [item for part in parts for item in self._items(part)]

    def _items(self, keys: tuple[Key, ...]) -> list[Item]:
        items = self._plans.get(keys)
        if items is None:
            if len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            items = self._plans[keys] = plan([self.infos[k] for k in keys])
        return items
