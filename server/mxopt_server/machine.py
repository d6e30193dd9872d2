"""The state of a server, which only records change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from mxopt.document import load_document
from mxopt.errors import KVStoreError, MXOptError
from mxopt.sparse import Table
from mxopt.typing import Plain
from mxopt_server import records as r
from mxopt_server.applier import Applier
from mxopt_server.contributions import ALL, Contribution, total
from mxopt_server.entries import Entry, Group
from mxopt_server.members import Members
from mxopt_server.served import Served
from mxopt_server.tables import TableEntry
from mxopt_server.values import Values


class Journal(Protocol):
    """What a machine needs of a journal."""

    together: bool  # whether committing is worth waiting for other messages that are here

    def append(self, record: r.Record) -> None:
        """Adds a record to those that `commit` makes last."""

    def commit(self) -> None:
        """Returns when what has been appended lasts."""


class OutOfMemory(BaseException):
    """A server has run out of memory in the middle of a record, and must end."""


class Machine:
    """What a server of a job with this number of workers holds: `values`, the optimizer (`served`),
    its `members` and their epochs."""

    def __init__(self, workers: int, journal: Journal | None = None) -> None:
        self.members = Members(workers)
        self.values = Values(self.members)
        self.served = Served(self.values.entries)
        self.applier = Applier(self.values, self.served)
        self.journal = journal
        self.cut = 0  # the number of the last
        self.intact = True  # False once a record was applied in part
        self._kinds: dict[type, Callable[[Any], None]] = {
            r.Update: self.applier.update, r.First: self._first, r.Optimizer: self._optimizer, r.Changed: self._changed,
            r.FirstRows: self._first_rows, r.Loaded: self._loaded, r.Member: self._member, r.Mode: self._mode,
            r.Cut: self._cut, r.Refusal: lambda refusal: None,
        }  # fmt: skip

    def enter(self, record: r.Record) -> None:
        """Keeps a record that has been checked, and changes the state as it says. Raises what
        `apply` raises."""
        if self.journal is None:
            self.apply(record)
            return
        self.journal.append(record)
        try:
            self.apply(record)
        except Exception as error:
            self.journal.append(r.Refusal(str(error)))
            raise

    def end_round(
        self, group: Group, rank: int, number: int, pushed: list[Contribution], wrong: Exception | None
    ) -> None:
        """Makes a record of a round that is over, as `Rounds.turn` says, and enters it."""
        first, value = pushed[0], None
        wrong = wrong or self._without_optimizer(rank != ALL, pushed)
        if wrong is None:
            alone = len(pushed) == 1 and isinstance(first.value, np.ndarray)
            value = first.value if alone else total([c.value for c in pushed])
        else:
            wrong = KVStoreError(f"key {group.entry.key!r}: {wrong}")
        self.enter(r.Update(group.keys, rank, number, value, first.update, wrong))

    def _without_optimizer(self, apart: bool, pushed: list[Contribution]) -> Exception | None:
        """Why pushes for a round can't be applied: the optimizer that they count on isn't here. If
        it is, takes over its config. `apart`: the round is of one worker."""
        served = self.served
        if apart and served.updater is None:
            return KVStoreError(
                f"dist_{self.members.mode} needs an optimizer: call set_optimizer before the first push"
            )
        for contribution in pushed:
            told = contribution.optimizer
            if told is None:
                continue
            if told.event > served.event if apart else told.event != served.event:
                return KVStoreError(
                    f"worker {pushed[0].rank} counts on its set_optimizer number {told.event}, and number"
                    f" {served.event} is the last that this server knows of; a script that goes on with a job calls"
                    " it as often as the job had before it pushes"
                )
            if not apart and told.digest != served.digest:
                try:
                    self.enter(r.Changed(told.config, served.version + 1))
                except MXOptError as error:
                    return error
            break
        return None

    def apply(self, record: r.Record) -> None:
        """Changes the state as a record says that is kept. Raises what the optimizer raises if
        it can't be set or loaded; a round that fails is over, and keeps its error. Raises
        OutOfMemory where there is no memory: that depends on the moment, so it is no refusal, and
        what is changed by then nobody knows."""
        try:
            self._kinds[type(record)](record)
        except MemoryError as error:
            self.intact = False
            raise OutOfMemory(f"there is no memory for {r.described(record)}: {error}") from error

    def _first(self, first: r.First) -> None:
        entry = self.values.entries.get(first.key)
        if entry is None:
            entry = Entry(first.key, first.dtype, first.shape, first.whole, first.first, first.round)
        entry.add(first.value)
        self.values.entries[first.key] = entry
        if entry.complete:
            self.served.name_parts(entry)

    def _first_rows(self, first: r.FirstRows) -> None:
        entry: Any = self.values.entries.get(first.key)
        if entry is None:
            table = Table.of(first.table)
            entry = TableEntry(first.key, table, first.declared, first.servers, first.round, first.total)
        entry.take(first.value, first.ids, entry.have + len(first.ids))
        self.values.entries[first.key] = entry

    def _optimizer(self, optimizer: r.Optimizer) -> None:
        with self._announced(optimizer.config):
            self.served.set_optimizer(optimizer.event, optimizer.config)

    def _changed(self, changed: r.Changed) -> None:
        self.served.version = changed.version
        with self._announced(changed.config):
            self.served.reconfigure(changed.config, self.members.apart)

    @contextmanager
    def _announced(self, config: Plain | None) -> Iterator[None]:
        """Announces that an optimizer is being made: a user's code may take long."""
        progress = self.applier.progress
        progress.begin("the constructor of optimizer", None if config is None else config.get("name"))
        try:
            yield
        finally:
            progress.end()

    def _loaded(self, loaded: r.Loaded) -> None:
        self.served.states.load(loaded.event, self.values.entry(loaded.key), load_document(loaded.document))

    def _member(self, member: r.Member) -> None:
        self.members.epochs[member.rank] = member.epoch
        for group in {id(group): group for group in self.values.groups.values()}.values():
            group.rounds.begin(member.rank, member.others)

    def _mode(self, mode: r.Mode) -> None:
        self.members.mode, self.members.staleness = mode.mode, mode.staleness

    def _cut(self, cut: r.Cut) -> None:
        self.cut = cut.number
