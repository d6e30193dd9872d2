"""The stores that live in one process: `local` and `device`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mxopt.document import write_file
from mxopt.engine import arrays
from mxopt.engine.uninterrupted import exhaust, uninterrupted
from mxopt.errors import ArgumentTypeError, ArrayError, KVStoreError, UsageError, counted
from mxopt.kvstore.base import KVStoreBase, capable
from mxopt.kvstore.compression import GradientCompression
from mxopt.kvstore.values import (
    FIRST,
    FirstValues,
    Key,
    Keyed,
    Keys,
    Pairs,
    RowIds,
    check_out,
    check_rows,
    check_whole,
    fill,
    total,
    with_ids,
    write,
    write_rows,
)
from mxopt.optimizer import Optimizer, Updater, get_updater
from mxopt.optimizer.grouped import GroupedOptimizer
from mxopt.optimizer.keyed import by_key
from mxopt.optimizer.states import described, load
from mxopt.overrides import overridden
from mxopt.sparse import RowSparse, Table
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table
from mxopt.typing import Array, Arrays, Document

Residuals = dict[Key, dict[Any, np.ndarray]]  # by key, what compression leaves of its values


class KVStore(KVStoreBase):
    """Values by key in this process: pushed values are summed, and replace the value or update it.

    The kinds differ in the order of the sums (`values.total`) and in compression, which only
    `device` has.
    """

    def __init__(self, name: str = "local") -> None:
        self._type = name
        self._keys = Keys()
        self._values: dict[Key, Array] = {}
        self._rounds: dict[Key, int] = {}  # pushes of each key so far
        self._updater: Callable[[Key, Array, Array], None] | None = None
        self._compression: GradientCompression | None = None

    @property
    def _on_device(self) -> bool:
        return "device" in self._type

    # Values.

    def init(self, key: Keyed, value: FirstValues) -> None:
        """Gives keys their first values, which are copied; a row-sparse value stays row-sparse.

        Parameters
        ----------
        key : int, str, or a list of them
        value : array, RowSparse or Table, or a list

        Raises
        ------
        KVStoreError
            A key has a value already.
        """
        pairs = self._keys.pairs(key, value, FIRST)
        self.check_new([name for name, _ in pairs])
        new = {
            name: of_table(first, Initial(first, name)) if isinstance(first, Table) else _stored(first)
            for name, (first, *_) in pairs
        }

        def add() -> None:
            for name, value in new.items():
                self._keys.add(name)
                self._values[name], self._rounds[name] = value, 0

        uninterrupted(add)

    def check_new(self, keys: Iterable[int | str]) -> None:
        """Raises KVStoreError if `init` would, for a key that has a value already, or is of the
        other type."""
        self._keys.check_new(keys)

    def push(self, key: Keyed, value: Arrays, priority: int = 0) -> None:
        """Sums the values of each key; the sum replaces the key's value, or updates it where an
        optimizer is set. Of a table without an optimizer the rows that are pushed replace those
        there; all others stay.

        Parameters
        ----------
        key : int, str, or a list of them
            A key that comes twice counts as one with the values of both.
        value : array or RowSparse, a list of them for a key, or a list of either for a list of keys
            Not changed, and not kept.
        priority : int
            Has no effect here.
        """
        pairs = self._keys.pairs(key, value)
        self._keys.need(pairs)
        pairs, left = self._compressed(self._keys.in_order(pairs))
        sums = [(k, v[0] if len(v) == 1 else total(v, not self._on_device)) for k, v in pairs]
        for each, pushed in sums:
            held = self._values[each]
            table = type(held) is not np.ndarray and _is_table(held)
            if pushed.shape != held.shape and (table or self._updater is not None):
                raise ArrayError(f"key {each!r}: the store holds shape {held.shape}, pushed was {pushed.shape}")
            if table:
                check_rows(pushed, table, each)
        if self._updater is None:
            self._replace_all(sums, left)
        elif len(sums) > 1 and isinstance(self._updater, Updater) and not overridden(type(self._updater), ["__call__"]):
            keys = [k for k, _ in sums]
            self._update(keys, keys, [v for _, v in sums], list(map(self._values.__getitem__, keys)), left)
        else:
            for k, v in sums:
                self._update((k,), k, v, self._values[k], left)

    def round(self, key: int | str) -> int:
        """The number of pushes of a key so far. Raises NotInitializedError for an unknown key."""
        return self._rounds[self._keys.one(key, "round")]

    def _compressed(self, pairs: Pairs) -> tuple[Pairs, Residuals]:
        """The pairs' values as they arrive, and the residuals that they leave, by key."""
        if self._compression is None:
            return pairs, {}
        found, left = [], {}
        for k, values in pairs:
            each = [((k, n), *self._compression.quantize((k, n), v)) for n, v in enumerate(values)]
            found.append((k, [sent for _, sent, _ in each]))
            left[k] = {name: residual for name, _, residual in each}
        return found, left

    # A push is taken, and counted, or neither, even if a signal handler raises: what changes the
    # store is one call of a function of C.

    def _taken(self, keys: Iterable[Key], left: Residuals) -> Iterable[object]:
        """Counts a push of these keys, with the residuals that it leaves: an iterator that calls
        functions of C."""
        counted = {k: self._rounds[k] + 1 for k in keys}
        rounds = map(self._rounds.__setitem__, counted, counted.values())
        if not left or self._compression is None:
            return rounds
        return chain(map(self._compression.residuals.update, [left[k] for k in counted]), rounds)

    def _replace_all(self, sums: Sequence[tuple[Key, Array]], left: Residuals) -> None:
        """Makes sums the values of their keys, or rows of them where that is a table."""
        new = {k: _stored(v) for k, v in sums if not _is_table(self._values[k])}
        taken = chain(map(self._values.__setitem__, new, new.values()), self._taken([k for k, _ in sums], left))
        if len(new) == len(sums):
            exhaust(taken)
            return

        def write() -> None:
            for k, v in sums:
                if k not in new:
                    self._values[k].write(*v.parts())
            exhaust(taken)

        uninterrupted(write)

    def _update(self, keys: Sequence[Key], index: Any, grad: Any, weight: Any, left: Residuals) -> None:
        """Calls the updater for keys. If it raises, those that it has updated and counted have been
        pushed."""
        updater: Any = self._updater
        count = updater.optimizer.count if isinstance(updater, Updater) else lambda key: None
        before, returned, done = list(map(count, keys)), False, list[bool]()
        try:
            updater(index, grad, weight)
            returned = True
            exhaust(chain(self._taken(keys, left), map(done.append, (True,))))
        except BaseException:
            if not done:
                exhaust(self._taken([k for k, n in zip(keys, before, strict=True) if returned or count(k) != n], left))
            raise

    def pull(self, key: Keyed, out: Arrays | None = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copies values into `out`, converted to its dtype.

        Parameters
        ----------
        key : int, str, or a list of them
        out : array, a list of them for the key, or a list of either for a list of keys
            Of exactly the value's shape. A RowSparse is left as it is, unless `ignore_sparse` is
            False.
        priority : int
            Has no effect here.

        Raises
        ------
        KVStoreError
            The value is a table: `row_sparse_pull` gives rows of it.
        """
        if out is None:
            raise UsageError("pull needs out, the array that is to be filled")
        for _, target, value in self._pulled(key, out, {}, ignore_sparse):
            fill(target, value)

    def _pulled(
        self, key: Any, out: Any, new: Mapping[Key, tuple[int, ...]], ignore_sparse: bool = True
    ) -> list[tuple[Key, Array, Array]]:
        """The outs that are written, each with its key and that one's value; `new` are shapes that
        values are about to have. Raises if one can't be."""
        pairs, found = self._keys.pairs(key, out, "out"), []
        self._keys.need(pairs)
        for name, outs in pairs:
            value = self._values[name]
            if type(value) is not np.ndarray:
                check_whole(_is_table(value), name)
            for target in outs:
                if type(target) is np.ndarray or not (ignore_sparse and isinstance(target, RowSparse)):
                    check_out(target, new.get(name, value.shape), name)
                    found.append((name, target, value))
        return found

    def pushpull(self, key: Keyed, value: Arrays, out: Arrays | None = None, priority: int = 0) -> None:
        """`push(key, value)`, then `pull(key, out)`, or into `value` without `out`. If it raises,
        what has been pushed has been pulled."""
        outs = value if out is None else out
        pushed = self._keys.pairs(key, value) if self._updater is None else []
        found = self._pulled(key, outs, {name: values[0].shape for name, values in pushed})
        before = [self._rounds[name] for name, _, _ in found]

        def pull_pushed() -> None:
            for (name, target, _), rounds in zip(found, before, strict=True):
                if self._rounds[name] != rounds:
                    fill(target, self._values[name])

        try:
            self.push(key, value, priority)
            pull_pushed()
        except BaseException:
            uninterrupted(pull_pushed)
            raise

    def broadcast(self, key: Keyed, value: Arrays, out: Arrays, priority: int = 0) -> None:
        """`init(key, value)`, then `pull(key, out)`."""
        self._keys.check_broadcast(key, value)
        self.init(key, value)
        self.pull(key, out, priority)

    def row_sparse_pull(
        self, key: Keyed, out: Arrays | None = None, priority: int = 0, row_ids: RowIds | None = None
    ) -> None:
        """Copies some rows of values into row-sparse `out`.

        Parameters
        ----------
        key : int, str, or a list of them
        out : RowSparse, or a list; gets new `data` and `indices`
        row_ids : array of numbers, or lists of them nested as `out`
            In any order and shape, repeated or not; those outside the value are left out.
        """
        for name, target, ids in with_ids(self._keys, key, out, row_ids):
            value = self._values[name]
            ids = ids[(ids >= 0) & (ids < len(value))]
            write_rows(target, ids, value.read(ids) if isinstance(value, RowSparse) else value[ids], len(value), name)

    # Optimizer.

    def set_optimizer(self, optimizer: Optimizer | GroupedOptimizer) -> None:
        """From here on a push updates the value by `optimizer`; changes of it take effect. States
        start afresh.

        Of an optimizer of `mxopt.experimental.optim` or `mxopt.nn` a key is a parameter's name, or
        its position.
        """
        self._set_updater(get_updater(by_key(optimizer)))

    def _set_updater(self, updater: Callable[[Key, Array, Array], None] | None) -> None:
        """From here on a push calls `updater(key, sum, value)`, which changes the value in
        place."""
        if updater is not None and not callable(updater):
            raise ArgumentTypeError(f"an updater is a function of a key, a sum and a value, got {updater!r:.80}")
        self._updater = updater

    def save_optimizer_states(self, fname: str | PathLike[str], dump_optimizer: bool = False) -> None:
        """Writes the optimizer's states, with their update counts, to the file `fname`; with the
        optimizer if asked for."""
        if not isinstance(self._updater, Updater):
            raise UsageError("there are no states to save: call set_optimizer first")
        write_file(fname, self._updater.get_states(dump_optimizer))

    def load_optimizer_states(self, fname: str | PathLike[str]) -> None:
        """Takes the optimizer's states, and its options if there, from the file `fname`.

        Raises StatesError if they are of another optimizer or other parameters; nothing has
        changed then.
        """
        if not isinstance(self._updater, Updater):
            raise UsageError("there is nothing to load the states into: call set_optimizer first")
        self._updater.take(load(Path(fname).read_bytes()), {key: described(v) for key, v in self._values.items()})

    def set_gradient_compression(self, compression_params: Document) -> None:
        """Compresses every value that is pushed, as `{'type': '2bit', 'threshold': 0.5}` says; see
        `compression`.

        Raises KVStoreError on a `local` store, which has no gain from it.
        """
        if not self._on_device:
            raise KVStoreError(f"the {self._type!r} store has no gradient compression: use 'device' or a dist store")
        self._compression = GradientCompression(compression_params)

    @property
    def compresses(self) -> bool:
        return self._compression is not None

    def _replace(self, key: Key, value: Array) -> None:
        """Gives a key another value; the optimizer's states stay, and a master copy follows."""
        write(value, self._values[key], key)
        if isinstance(self._updater, Updater):
            self._updater.refresh(key, value)

    # The rest of the interface.

    @staticmethod
    def is_capable(capability: str) -> bool:
        """True for 'optimizer'; raises ValueError for anything else."""
        return capable(capability, optimizer=True)

    @property
    def type(self) -> str:
        return self._type

    @property
    def rank(self) -> int:
        return 0

    @property
    def num_workers(self) -> int:
        return 1

    def barrier(self) -> None:
        """Returns at once: there is one worker."""

    _barrier = barrier

    def __repr__(self) -> str:
        updater = f", {self._updater!r}" if self._updater is not None else ""
        return f"<{type(self).__name__} {self.type!r}: {counted(len(self._values), 'key')}{updater}>"


def _is_table(value: object) -> bool:
    return isinstance(value, RowSparse) and value.initial is not None


def _stored(value: Array) -> Array:
    """A copy of a value as the store keeps it."""
    if isinstance(value, RowSparse):
        return value.copy()
    return value.copy() if arrays.is_cupy(value) else np.array(value, order="C")
