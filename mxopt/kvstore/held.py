"""The keys that servers hold, as a worker knows them, and what callers give for these keys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.kvstore.exchange import PLANS, Item, Meta, plan
from mxopt.kvstore.placement import layout, layout_by_rows
from mxopt.kvstore.values import Key, Keys, check_out, check_rows, check_whole, total
from mxopt.sparse import RowSparse, Table


class Held:
    """The keys of a job with so many servers; arrays of `bound` elements and more lie on all of them.

    Attributes
    ----------
    keys : Keys
    metas : dict
        What is known of each key.
    """

    def __init__(self, servers: int, bound: int) -> None:
        self.keys: Keys = Keys()
        self.metas: dict[Key, Meta] = {}
        self._servers = servers
        self._bound = bound
        self._plans: dict[tuple[Key, ...], list[Item]] = {}

    def meta(self, key: Key, array: np.ndarray, whole: bool) -> Meta:
        """What would be known of a key with this first value. `whole`: one server holds it all."""
        shape = array.shape
        placed = layout(key, shape, array.itemsize, self._servers, self._bound, whole)
        return Meta(key, array.dtype, shape, math.prod(shape), placed)

    def meta_by_rows(self, key: Key, table: Table, declared: bool, whole: bool) -> Meta:
        """The same of a key that is stored by rows."""
        placed = layout_by_rows(key, table.shape, self._servers, whole)
        return Meta(key, table.dtype, table.shape, math.prod(table.shape), placed, table=table, declared=declared)

    def add(self, meta: Meta) -> None:
        """Notes a new key."""
        self.keys.add(meta.key)
        self.metas[meta.key] = meta

    def plain(self, key: Any, values: Any) -> dict[Key, Any] | None:
        """Keys and arrays that are just what the servers hold, the usual case; None for everything else."""
        if type(values) is np.ndarray:
            meta = self.metas.get(key) if type(key) in (int, str) else None
            return (
                {key: values}
                if meta is not None and values.shape == meta.shape and values.dtype == meta.dtype and not meta.table
                else None
            )
        if type(key) is not list or type(values) is not list or len(key) != len(values):
            return None
        try:
            metas = [self.metas[k] for k in key]
            for meta, v in zip(metas, values, strict=True):
                if type(v) is not np.ndarray or v.shape != meta.shape or v.dtype != meta.dtype or meta.table:
                    return None
        except (KeyError, TypeError):
            return None
        found = dict(zip(key, values, strict=True))
        return found if len(found) == len(key) else None

    def sums(self, keys: Any, given: Any, blocks: bool) -> dict[Key, Any]:
        """The sum of each key's values; `blocks` as of `total`. Raises where they can't be pushed."""
        plain = self.plain(keys, given)
        if plain is not None:
            return plain
        pairs = self.keys.pairs(keys, given)
        self.keys.need(pairs)
        found: dict[Key, Any] = {}
        for key, values in self.keys.in_order(pairs):
            value = values[0] if len(values) == 1 else total(values, blocks)
            if arrays.is_cupy(value):
                value = value.get()
            if not value.dtype.isnative:
                value = value.astype(value.dtype.newbyteorder("="))
            meta = self.metas[key]
            if value.shape != meta.shape:
                raise ArrayError(f"key {key!r}: the servers hold shape {meta.shape}, pushed was {value.shape}")
            if value.dtype != meta.dtype:
                raise ArrayTypeError(f"key {key!r}: the servers hold {meta.dtype}, pushed was {value.dtype}")
            if meta.layout.by_rows and not isinstance(value, RowSparse):
                check_rows(value, meta.declared, key)
                value = RowSparse(np.ascontiguousarray(value), np.arange(len(value)), value.shape)
            found[key] = value
        return found

    def outs(self, keys: Any, given: Any) -> dict[Key, list[Any]]:
        """The dense outs of each key. Raises where they can't be written."""
        plain = self.plain(keys, given)
        if plain is not None and all(out.flags.writeable for out in plain.values()):
            return {key: [out] for key, out in plain.items()}
        pairs = self.keys.pairs(keys, given, "out")
        self.keys.need(pairs)
        found: dict[Key, list[Any]] = {}
        for key, outs in pairs:
            meta = self.metas[key]
            shape = meta.shape
            check_whole(meta.declared, key)
            dense = [o for o in outs if not isinstance(o, RowSparse)]
            for out in dense:
                check_out(out, shape, key)
            if dense and meta.layout.by_rows:
                RowSparse(np.empty((0, *shape[1:]), meta.dtype), np.empty(0, np.int64), shape).check_dense()
            if dense:
                found[key] = dense
        return found

    def push(self, keys: Iterable[Key]) -> None:
        """Counts a push of these keys."""
        for key in keys:
            self.metas[key].round += 1

    def items(self, keys: tuple[Key, ...]) -> list[Item]:
        """The messages that carry these keys; those of one message are of one round."""
        rounds = {self.metas[key].round for key in keys}
        if len(rounds) <= 1:
            return self._items(keys)
        parts = [tuple(key for key in keys if self.metas[key].round == each) for each in sorted(rounds)]
        return [item for part in parts for item in self._items(part)]

    def _items(self, keys: tuple[Key, ...]) -> list[Item]:
        items = self._plans.get(keys)
        if items is None:
            if len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            items = self._plans[keys] = plan([self.metas[k] for k in keys])
        return items
