"""First values: arrays in pieces, and keys that are stored by rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mxopt.errors import KVStoreError, MXOptError, ProtocolError, counted
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.wire import Key
from mxopt.sparse import Table
from mxopt_server.entries import Entry
from mxopt_server.machine import Machine
from mxopt_server.records import First, FirstRows
from mxopt_server.tables import TableEntry
from mxopt_server.worker_session import Handlers, Session


class FirstValues:
    """The handlers of these messages of `server`, one each."""

    def __init__(self, machine: Machine, server: int) -> None:
        self._machine, self._values, self._server = machine, machine.values, server
        self.handlers: Handlers = {
            m.Init: self.init, m.InitTable: self.init_table, m.Rounds: self.rounds,
        }  # fmt: skip

    def init(self, session: Session, init: m.Init) -> None:
        if not len(init.keys) == len(init.shapes) == len(init.wholes) or len(set(init.keys)) < len(init.keys):
            raise ProtocolError("Init names each of its keys once, with both shapes")
        wire.check_number(init.round, f"key {init.keys[0]!r}")
        size, new = 0, []
        for key, shape, whole in zip(init.keys, init.shapes, init.wholes, strict=True):
            entry = self._described(key, shape, whole, init)
            if init.piece == len(entry.parts):  # else it is known: what is here counts
                new.append((entry, size))
            elif init.piece > len(entry.parts):
                raise ProtocolError(f"key {key!r}: piece {init.piece} before piece {len(entry.parts)}")
            size += entry.size_of(init.piece)
        values = wire.array_of(init.data[0], wire.DTYPES[init.dtype], size, init.keys[0])
        for entry, start in new:
            about = (init.dtype, list(entry.shape), list(entry.whole), entry.first, entry.round)
            value = values[start : start + entry.size_of(init.piece)]
            self._machine.enter(First(entry.key, *about, init.piece, value))
        session.done(init.seq)

    def _described(self, key: Key, shape: Sequence[int], whole: Sequence[int], init: m.Init) -> Entry:
        """The entry of a key that an Init names, or one like it where it is new. Raises if it can't
        be as that says."""
        fits = bool(shape) and (init.first + shape[0]) * math.prod(shape[1:]) <= math.prod(whole)
        axes = (math.prod(n for n in each if n) for each in (shape, whole))  # an array without elements has them too
        if not fits or max(axes) * wire.DTYPES[init.dtype].itemsize > wire.LARGEST:
            raise ProtocolError(f"key {key!r}: no part of {shape} at {init.first} in {whole}")
        described = (init.dtype, tuple(shape), tuple(whole), init.first)
        entry = self._values.entries.get(key)
        if entry is None:
            entry = Entry(key, *described, init.round)
        elif entry.by_rows or (entry.dtype, entry.shape, entry.whole, entry.first) != described:
            raise self._differs(key, init.dtype, whole, entry)
        if len(init.keys) > 1 and entry.pieces > 1:
            raise ProtocolError(f"key {key!r} has {counted(entry.pieces, 'piece')}, which travel one by one")
        return entry

    def init_table(self, session: Session, init: m.InitTable) -> None:
        wire.check_number(init.round, f"key {init.key!r}")
        if not init.whole or 0 in init.whole or not init.servers:
            raise ProtocolError(
                f"key {init.key!r}: no table has the shape {init.whole} on {counted(init.servers, 'server')}"
            )
        said = {"shape": init.whole, "dtype": init.dtype, "init": init.init, "scale": init.scale, "seed": init.seed}
        try:
            table = Table.of(said)
        except MXOptError as error:
            raise ProtocolError(f"key {init.key!r}: {error}") from None
        row = math.prod(table.shape[1:]) * table.dtype.itemsize
        if row > wire.ROW_BYTES:
            raise ProtocolError(f"key {init.key!r}: rows of {counted(row, 'byte')}, at most {wire.ROW_BYTES}")
        if init.total > len(table):
            raise ProtocolError(f"key {init.key!r}: {init.total} first rows of {len(table)}")
        described = (table, init.declared, init.servers)
        entry = self._values.entries.get(init.key)
        if entry is None:
            entry = TableEntry(init.key, *described, init.round, init.total)
        elif not isinstance(entry, TableEntry) or described != (entry.table, entry.declared, entry.servers):
            raise self._differs(init.key, init.dtype, init.whole, entry, by_rows=True)
        if not entry.complete and init.offset >= entry.have:  # else it is known: what is here counts
            ids = wire.rows_of(init.data[0], init.key)
            rows = wire.array_of(init.data[1], entry.real, len(ids) * math.prod(entry.shape[1:]), init.key)
            entry.check(ids, self._server)
            follows = (init.offset, init.total) == (entry.have, entry.total)
            if not follows or init.offset + len(ids) > init.total or (init.total and not len(ids)):
                raise ProtocolError(
                    f"key {init.key!r}: {counted(len(ids), 'row')} after {init.offset} of {init.total},"
                    f" {entry.have} are here"
                )
            about = (table.plain(), init.declared, init.servers, entry.round, init.total)
            self._machine.enter(FirstRows(init.key, *about, ids, rows))
        session.done(init.seq)

    def _differs(self, key: Key, dtype: str, whole: Sequence[int], entry: Entry, by_rows: bool = False) -> KVStoreError:
        stored = [" stored by rows" * each for each in (entry.by_rows, by_rows)]
        return KVStoreError(
            f"key {key!r} is initialised on server {self._server} as {entry.dtype} of shape {entry.whole}{stored[0]},"
            f" not as {dtype} of shape {tuple(whole)}{stored[1]}"
        )

    def rounds(self, session: Session, ask: m.Rounds) -> None:
        """Answers with the rounds from which a worker numbers its pushes; earlier pushes that
        aren't here are lost."""
        members = self._machine.members
        if ask.pushed and len(ask.pushed) != len(ask.keys):
            raise ProtocolError(f"Rounds with {counted(len(ask.keys), 'key')} and {counted(len(ask.pushed), 'push')}")
        if members.lossy and members.apart:
            for key, number in zip(ask.keys, ask.pushed, strict=False):
                for part in self._values.entry(key).parts:
                    self._values.group(((key, part.piece),), [part])
                    if part.group is not None:
                        part.group.rounds.catch_up(session.rank, number)
        present = [self._values.present(key, session.rank) for key in ask.keys]
        session.give(m.Present(ask.seq, present, members.lost))
