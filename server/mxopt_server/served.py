"""The optimizer that a server updates by: which it is, and its states and counts by entry and
part."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mxopt.arguments import attribute_of
from mxopt.errors import KVStoreError, MXOptError, StatesError
from mxopt.kvstore import messages as m
from mxopt.kvstore.placement import needs_whole
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.wire import Key
from mxopt.optimizer import Optimizer, Updater
from mxopt.optimizer.config import make_optimizer
from mxopt.optimizer.counts import Index
from mxopt.sparse.array import as_now
from mxopt.typing import Document, Plain, State
from mxopt_server.fit import fitting
from mxopt_server.told import digest
from mxopt_server.values import Entry, PartIndex

log = logging.getLogger("mxopt.server")

ABSENT = object()  # for a state: there is none


class Served:
    """The workers' optimizer, with the states and counts of all that `entries` holds.

    An entry of one piece has its state under its key. One of several has it under its key too, and
    each part has its piece of it, unless the optimizer needs `whole` arrays.
    """

    def __init__(self, entries: Mapping[Key, Entry]) -> None:
        self.entries = entries
        self.updater: Updater | None = None
        self.config: Plain | None = None
        self.whole = False
        self.digest = digest(None)  # of the config
        self.version = 0  # changes of the config so far
        self.event = 0  # calls of set_optimizer so far
        self.refused: MXOptError | None = None  # why the last of them was
        self.loads: dict[Key, int] = {}  # calls of load_optimizer_states so far
        # By index and worker: the part of a state that is that worker's alone.
        self.own: dict[tuple[Index | PartIndex, int], np.ndarray] = {}

    # Which it is.

    def set_optimizer(self, event: int, config: Plain | None) -> None:
        """Installs an optimizer with no states, unless a worker's call of this number did so
        already."""
        if event == self.event and self.refused is not None:
            raise self.refused
        if event <= self.event:
            return
        if event > self.event + 1:
            raise KVStoreError(
                f"this is the workers' set_optimizer number {event}, and number {self.event} is the last that this"
                " server knows of"
            )
        self.event, self.refused = event, None
        try:
            self.install(config)
        except MXOptError as error:
            self.refused = error  # to the other workers' calls of this number too
            raise

    def install(self, config: Plain | None) -> None:
        """Makes the optimizer of a config. Raises where it can't update what is here."""
        optimizer = None if config is None else make_optimizer(config)
        whole = needs_whole(optimizer)
        for entry in self.entries.values():
            if needs_whole(optimizer, entry.by_rows) and not entry.is_all:
                raise KVStoreError(
                    f"{optimizer!r} needs whole arrays, but key {entry.key!r} is striped over the servers:"
                    " call set_optimizer before init"
                )
        self.updater = None if optimizer is None else Updater(optimizer)
        self.config, self.whole, self.own = config, whole, {}
        self.digest = digest(config)
        for entry in self.entries.values():
            self.name_parts(entry)
        log.info("optimizer: %r", optimizer)

    def reconfigure(self, config: Plain, apart: bool = False) -> None:
        """Takes over changed hyper-parameters; states and counts stay. `apart`: each worker has
        pushed for itself."""
        if config == self.config or self.updater is None:
            return
        made, kept = make_optimizer(config), self.updater.optimizer
        if type(made) is not type(kept) or needs_whole(made) != self.whole:
            raise KVStoreError(f"a {type(kept).__name__} can't become {made!r} between pushes: call set_optimizer")
        for name in config["arguments"]:
            attribute = attribute_of(type(kept), name)
            setattr(kept, attribute, getattr(made, attribute))
        if apart:
            self._count_from_here(config, made, kept)
        kept.lr_scheduler, kept.idx2name = made.lr_scheduler, made.idx2name
        kept.lr_mult, kept.wd_mult = made.lr_mult, made.wd_mult
        for entry in self.entries.values():
            self.name_parts(entry)
        self.config, self.digest = config, digest(config)

    def _count_from_here(self, config: Document, made: Optimizer, kept: Optimizer) -> None:
        """A worker counts its own pushes: a rate that it has assigned to the schedule counts from
        all of them here."""
        schedule, before = made.lr_scheduler, kept.lr_scheduler
        if schedule is None or self.config is None:
            return
        schedule.reach(kept.num_update)
        rate, since = schedule.assigned
        if before is not None and config["scheduler"] == self.config["scheduler"]:
            schedule.assigned = before.assigned
        elif since:
            schedule.assigned = (rate, max(since, kept.num_update))

    def name_parts(self, entry: Entry) -> None:
        """Lets a key's name and multipliers hold for its parts too, and tells where in the array
        these are."""
        if self.updater is None:
            return
        optimizer, unit = self.updater.optimizer, math.prod(entry.shape[1:])
        optimizer.parts[entry.key] = entry.key, entry.first * unit
        optimizer.parts.update({p.index: (entry.key, (entry.first + p.start) * unit) for p in entry.parts})
        if entry.pieces == 1:
            return
        tables: tuple[dict[Any, Any], ...] = (optimizer.idx2name, optimizer.lr_mult, optimizer.wd_mult)
        for values in tables:
            if entry.key in values:
                values.update(dict.fromkeys((part.index for part in entry.parts), values[entry.key]))

    # States and counts.

    def cut_states(self, entry: Entry) -> None:
        """Sees to it that each of an entry's parts has its piece of the state."""
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
        """Counts on from `count`, the entry and each of its parts."""
        assert self.updater is not None
        for index in {entry.key, *(part.index for part in entry.parts)}:
            self.updater.optimizer.set_count(index, count)

    def state(self, entry: Entry) -> State:
        """An entry's state; ABSENT where there is none yet."""
        return ABSENT if self.updater is None else self.updater.states.get(entry.key, ABSENT)

    def set_state(self, entry: Entry, state: State) -> None:
        """Takes over a saved state."""
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
        refused = self.refused and [type(self.refused).__name__, str(self.refused)]
        counts: Plain = {}
        if self.updater is not None:
            known = self.updater.optimizer.get_counts()
            counts = {name: dict(n) if isinstance(n, dict) else n for name, n in known.items()}
            devices = counts["devices"].items()
            counts["devices"] = [[device, [[_named(i), n] for i, n in of.items()]] for device, of in devices]
        own = [[_named(index), rank, as_now(array)] for (index, rank), array in self.own.items()]
        schedule = None if self.updater is None else self.updater.optimizer.lr_scheduler
        assigned = None if schedule is None else list(schedule.assigned)
        return {
            "event": self.event, "version": self.version, "refused": refused, "config": self.config,
            "assigned": assigned, "counts": counts, "own": own,
        }  # fmt: skip

    def restore(self, saved: Document, same_job: bool) -> None:
        """Takes over a record, once the entries and their states are there; events and what is a
        worker's own only of the same job."""
        if self.updater is not None:
            counts = dict(saved["counts"])
            counts["devices"] = {d: {self._index(name): n for name, n in of} for d, of in counts["devices"]}
            self.updater.optimizer.set_counts(counts)
            if saved["assigned"] is not None and self.updater.optimizer.lr_scheduler is not None:
                rate, since = saved["assigned"]
                self.updater.optimizer.lr_scheduler.assigned = (rate, since)
        if same_job:
            self.event, self.version = saved["event"], saved["version"]
            code, text = saved["refused"] or ("", "")
            self.refused = error_of(m.Refused(0, code, text, None)) if code else None
            self.own = {(self._index(name), rank): array for name, rank, array in saved["own"]}

    def _index(self, name: list[Any]) -> Any:
        key, piece = name
        return key if piece is None else self.entries[key].parts[piece].index


def _named(index: Any) -> list[Any]:
    return [index.key, index.piece] if isinstance(index, PartIndex) else [index, None]


def _is_of(index: Any, entry: Entry) -> bool:
    return bool((index.key if isinstance(index, PartIndex) else index) == entry.key)


def _cut(state: State, start: int, stop: int, units: int) -> State:
    """The part `start` to `stop` of an optimizer's state: views of its arrays."""
    if isinstance(state, tuple | list):
        return type(state)(_cut(part, start, stop, units) for part in state)
    if isinstance(state, np.ndarray) and state.ndim and state.shape[0] == units:
        return state[start:stop]
    return state
