"""The states and counts of a server's optimizer, by entry and part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mxopt.errors import KVStoreError, StatesError
from mxopt.kvstore.wire import Key
from mxopt.optimizer import Updater
from mxopt.optimizer.counts import Index
from mxopt.sparse.array import as_now
from mxopt.typing import Document, Plain, State
from mxopt_server.entries import Entry, PartIndex
from mxopt_server.fit import fitting

ABSENT = object()  # for a state: there is none


class States:
    """The optimizer's states of all `entries`.

    An entry of one piece has its state under its key. One of several has it under its key too, and
    each part has its piece of it, unless the optimizer needs `whole` arrays.
    """

    def __init__(self, entries: Mapping[Key, Entry]) -> None:
        self.entries = entries
        self.updater: Updater | None = None
        self.whole = False
        self.loads: dict[Key, int] = {}  # calls of load_optimizer_states so far
        # By index and worker: the part of a state that is that worker's alone.
        self.own: dict[tuple[Index | PartIndex, int], np.ndarray] = {}

    def begin(self, updater: Updater | None, whole: bool) -> None:
        """Begins with another optimizer, and no states."""
        self.updater, self.whole, self.own = updater, whole, {}

    def cut_states(self, entry: Entry) -> None:
        """Cuts an entry's state, so that each part has its piece."""
        updater = self.updater
        assert updater is not None
        if entry.parts[-1].index in updater.states:
            return
        if entry.key not in updater.states:
            updater.states[entry.key] = updater.optimizer.create_state_multi_precision(entry.key, entry.weight)
            updater.states_synced[entry.key] = True
        for part in entry.parts:
            updater.states[part.index] = _cut(updater.states[entry.key], part.start, part.stop, entry.units)
            updater.states_synced[part.index] = True

    def count(self, entry: Entry) -> int | None:
        """How often an entry has been updated."""
        if self.updater is None:
            return None
        found = self.updater.optimizer.count(entry.parts[0].index)
        return self.updater.optimizer.count(entry.key) if found is None else found

    def set_count(self, entry: Entry, count: int) -> None:
        """Sets the count of the entry and of each of its parts."""
        assert self.updater is not None
        for index in {entry.key, *(part.index for part in entry.parts)}:
            self.updater.optimizer.set_count(index, count)

    def state(self, entry: Entry) -> State:
        """An entry's state; ABSENT if there is none yet."""
        return ABSENT if self.updater is None else self.updater.states.get(entry.key, ABSENT)

    def set_state(self, entry: Entry, state: State) -> None:
        """Sets a saved state."""
        if self.updater is None:
            raise KVStoreError("there is no optimizer to load states for: call set_optimizer first")
        updater = self.updater
        for index in (entry.key, *(part.index for part in entry.parts)):
            updater.states.pop(index, None)
            updater.states_synced.pop(index, None)
        self.own = {(index, rank): own for (index, rank), own in self.own.items() if not _is_of(index, entry)}
        if state is not ABSENT:
            updater.states[entry.key] = state
            if entry.pieces > 1 and not self.whole:
                self.cut_states(entry)

    def load(self, event: int, entry: Entry, content: Document) -> None:
        """Takes over the state and count of a document, unless a worker's call of this number did
        so already."""
        if self.loads.get(entry.key, 0) >= event:
            return
        count = content.get("count")
        if type(count) not in (int, type(None)):
            raise StatesError(f"key {entry.key!r}: the count of its updates is a number or nil, not {count!r:.80}")
        state = content.get("state", ABSENT)
        if state is not ABSENT and self.updater is not None:
            state = fitting(self.updater.optimizer, entry, state, self.whole)
        self.set_state(entry, state)
        assert self.updater is not None
        optimizer = self.updater.optimizer
        if count is not None:
            self.set_count(entry, count)
        if count is None or count < optimizer.num_update:
            counts = [n for of in optimizer.get_counts()["devices"].values() for n in of.values()]
            optimizer.num_update = max([optimizer.begin_num_update, *counts])
        else:
            optimizer.num_update = count
        self.loads[entry.key] = event

    def lend(self, index: Any, rank: int, weight: np.ndarray, ranks: Iterable[int]) -> None:
        """Puts a worker's own part into the state of `index`, where the optimizer has such a
        part."""
        updater = self.updater
        assert updater is not None
        optimizer = updater.optimizer
        position = optimizer.per_worker_state
        if position is None:
            return
        if index not in updater.states:
            updater.states[index] = optimizer.create_state_multi_precision(index, weight)
        state, master = updater.states[index], None
        if optimizer.uses_master(weight):
            state, master = optimizer.split(state)
        if (index, rank) not in self.own:  # its first update: everybody knows the same
            self.own.update({(index, each): state[position].copy() for each in ranks})
        parts = list(state)
        parts[position] = self.own[index, rank]
        lent = tuple(parts)
        updater.states[index] = lent if master is None else optimizer.join(lent, master)
        updater.states_synced[index] = True

    # For a snapshot.

    def record(self) -> Plain:
        """What isn't the state of an entry, as plain data and arrays."""
        counts: Plain = {}
        if self.updater is not None:
            known = self.updater.optimizer.get_counts()
            counts = {name: dict(n) if isinstance(n, dict) else n for name, n in known.items()}
            devices = counts["devices"].items()
            counts["devices"] = [[device, [[_named(i), n] for i, n in of.items()]] for device, of in devices]
        own = [[_named(index), rank, as_now(array)] for (index, rank), array in self.own.items()]
        return {"counts": counts, "own": own}

    def restore(self, saved: Document, same_job: bool) -> None:
        """Takes over a record, once the entries and their states are there; what is a worker's own
        only of the same job."""
        if self.updater is not None:
            counts = dict(saved["counts"])
            counts["devices"] = {d: {self._index(name): n for name, n in of} for d, of in counts["devices"]}
            self.updater.optimizer.set_counts(counts)
        if same_job:
            self.own = {(self._index(name), rank): array for name, rank, array in saved["own"]}

    def _index(self, name: list[Any]) -> Any:
        key, piece = name
        return key if piece is None else self.entries[key].parts[piece].index


def _named(index: object) -> list[Any]:
    return [index.key, index.piece] if isinstance(index, PartIndex) else [index, None]


def _is_of(index: object, entry: Entry) -> bool:
    return bool((index.key if isinstance(index, PartIndex) else index) == entry.key)


def _cut(state: object, start: int, stop: int, units: int) -> State:
    """The part `start` to `stop` of an optimizer's state: views of its arrays."""
    if isinstance(state, tuple | list):
        return type(state)(_cut(part, start, stop, units) for part in state)
    if isinstance(state, np.ndarray) and state.ndim and state.shape[0] == units:
        return state[start:stop]
    return state
