"""What workers ask of values: to begin with one, pushes, pulls, and both by rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mxopt.errors import JobFailedError, KVStoreError, MXOptError, ProtocolError, counted
from mxopt.kvstore import compression, messages as m, wire
from mxopt.kvstore.wire import Frame, Key
from mxopt.sparse import RowSparse, Table
from mxopt.typing import Array
from mxopt_server.answers import Answers
from mxopt_server.groups import Group, GroupKey
from mxopt_server.machine import Machine
from mxopt_server.records import Changed, First, FirstRows, Record, Update
from mxopt_server.rounds import ALL, DEPTH, Contribution, Request
from mxopt_server.sums import total
from mxopt_server.tables import TableEntry
from mxopt_server.values import Entry, Part
from mxopt_server.worker_session import Handlers, Session

INT64 = np.dtype(np.int64)
ROWS = 1 << 30  # bytes of one push of rows
LACKS = 8  # missing pushes that a worker is told of


class ValueRequests:
    """The handlers of these messages, one each."""

    def __init__(self, machine: Machine, enter: Callable[[Record], None], answers: Answers, depth: int = DEPTH) -> None:
        self.values, self.members, self.served = machine.values, machine.members, machine.served
        self.enter, self.answers, self.depth = enter, answers, depth
        self.handlers: Handlers = {
            m.Push: self.push, m.Pull: self.pull, m.Init: self.init, m.PushRows: self.push_rows,
            m.PullRows: self.pull_rows, m.ListRows: self.list_rows, m.InitTable: self.init_table, m.Rounds: self.rounds,
        }  # fmt: skip

    def init(self, session: Session, init: m.Init) -> None:
        if not init.shape or math.prod(init.shape) > math.prod(init.whole):
            raise ProtocolError(f"key {init.key!r}: no part of {init.shape} in {init.whole}")
        described = (init.dtype, tuple(init.shape), tuple(init.whole), init.first)
        entry = self.values.entries.get(init.key)
        if entry is None:
            entry = Entry(init.key, *described)
        elif entry.by_rows or (entry.dtype, entry.shape, entry.whole, entry.first) != described:
            raise self._differs(init, entry)
        if init.piece > len(entry.parts):
            raise ProtocolError(f"key {init.key!r}: piece {init.piece} before piece {len(entry.parts)}")
        if init.piece == len(entry.parts):  # else it is known: what is here counts
            value = wire.array_of(init.data[0], entry.real, entry.size_of(init.piece), init.key)
            self.enter(First(init.key, init.dtype, init.shape, init.whole, init.first, init.piece, value))
        self.answers.done(session, init.seq)

    def init_table(self, session: Session, init: m.InitTable) -> None:
        if not init.whole or 0 in init.whole or not init.servers:
            raise ProtocolError(
                f"key {init.key!r}: no table has the shape {init.whole} on {counted(init.servers, 'server')}"
            )
        table = Table(tuple(init.whole), wire.DTYPES[init.dtype], init.init, init.scale, init.seed)
        described = (table, init.declared, init.servers, init.total)
        entry = self.values.entries.get(init.key)
        if entry is None:
            entry = TableEntry(init.key, *described)
        elif not isinstance(entry, TableEntry) or described[:3] != (entry.table, entry.declared, entry.servers):
            raise self._differs(init, entry)
        if not entry.complete and init.offset >= entry.have:  # else it is known: what is here counts
            ids = wire.array_of(init.data[0], INT64, wire.size_of(init.data[0]) // 8, init.key)
            rows = wire.array_of(init.data[1], entry.real, len(ids) * math.prod(entry.shape[1:]), init.key)
            entry.check(ids)
            follows = (init.offset, init.total) == (entry.have, entry.total)
            if not follows or init.offset + len(ids) > init.total or (init.total and not len(ids)):
                raise ProtocolError(
                    f"key {init.key!r}: {counted(len(ids), 'row')} after {init.offset} of {init.total},"
                    f" {entry.have} are here"
                )
            self.enter(FirstRows(init.key, table.plain(), *described[1:], ids, rows))
        self.answers.done(session, init.seq)

    def _differs(self, init: m.Init | m.InitTable, entry: Entry) -> KVStoreError:
        by_rows = [" stored by rows" * each for each in (entry.by_rows, isinstance(init, m.InitTable))]
        return KVStoreError(
            f"key {init.key!r} is initialised on server {self.answers.rank} as {entry.dtype} of shape"
            f" {entry.whole}{by_rows[0]}, not as {init.dtype} of shape {tuple(init.whole)}{by_rows[1]}"
        )

    def rounds(self, session: Session, ask: m.Rounds) -> None:
        """The rounds from which a worker counts its pushes on; what it has pushed before and isn't
        here is lost."""
        if self.members.lossy and self.members.kind.apart:
            for key, number in zip(ask.keys, ask.pushed, strict=False):
                for part in self.values.entry(key).parts:
                    self.values.group(((key, part.piece),), [part])
                    if part.group is not None:
                        part.group.rounds.catch_up(session.rank, number)
        present = [self.values.present(key, session.rank) for key in ask.keys]
        self.answers.give(session, m.Present(ask.seq, present, self.members.lost))

    def push(self, session: Session, push: m.Push) -> None:
        keys: GroupKey = tuple(push.keys) if len(push.keys) > 1 else ((push.keys[0], push.piece),)
        group = self.values.groups.get(keys)
        if group is not None:
            parts, size, dtype = group.parts, group.size, group.dtype
        else:
            parts = self.values.parts(push.keys, push.piece)
            size, dtype = sum(p.size for p in parts), parts[0].weight.dtype
        if push.codec:
            value = self._decompress(push, size).astype(dtype, copy=False)
        else:
            value = wire.array_of(push.data[0], dtype, size, push.keys[0])
        self._take(session, push, keys, parts, value, push.answer)

    def _decompress(self, push: m.Push, size: int) -> np.ndarray:
        if push.codec not in compression.CODECS.values():
            raise ProtocolError(f"there is no codec {push.codec}")
        expected = compression.encoded_size(push.codec, size)
        sent = wire.array_of(push.data[0], np.dtype(np.uint8), expected, push.keys[0])
        return compression.decode(sent, push.codec, push.threshold, size)

    def _take(
        self, session: Session, push: m.Push | m.PushRows, keys: GroupKey, parts: list[Part], value: Array, answer: bool
    ) -> None:
        """Hands a push to its rounds, and sees to it that the worker gets its answer."""
        rank, number = session.rank, push.round
        if self.members.ended:
            lost = self.lost(rank, parts, pushing=True)
            if lost is not None:
                raise lost
        told = session.counts_on(push.config)
        shares = self.values.shares(keys, parts, Contribution(rank, number, value, told, push.update, push.step))
        new = [(g, c) for g, c in shares if g.rounds.is_new(rank, number, g.parts[0].entry.key)]
        if push.step > session.step:
            self._look_back(session, push.step, [group for group, _ in new])
        for group, contribution in new:
            group.rounds.take(contribution)
            while turn := group.rounds.turn():
                self._end(group, *turn)
        first = shares[0][0].rounds
        if answer:
            self.values.wait(session.wait(push.seq, parts, number, value.nbytes, self._values, pushes=True))
        elif first.depth(rank) > self.depth:
            nbytes = value.data.nbytes if isinstance(value, RowSparse) else value.nbytes
            self.values.wait(session.wait(push.seq, parts, number, nbytes, self.answers.done_with, pushes=True))
        else:
            failed = next(filter(None, (g.rounds.error(rank, number) for g, _ in shares)), None)
            if failed is not None:
                raise failed
            self.answers.done(session, push.seq)

    def _end(self, group: Group, number: int, pushed: list[Contribution], wrong: Exception | None) -> None:
        """A round is over: makes it a record, and answers who has waited for it."""
        entry, rank = group.parts[0].entry, pushed[0].rank if group.rounds.apart else ALL
        value = None
        wrong = wrong or self._without_optimizer(group, pushed)
        if wrong is None:
            value = pushed[0].value if len(pushed) == 1 else total([c.value for c in pushed])
        else:
            wrong = KVStoreError(f"key {entry.key!r}: {wrong}")
        self.enter(Update(group.keys, rank, number, value, pushed[0].update, wrong))
        for each in [part.group for part in entry.parts] if self.served.whole and entry.pieces > 1 else (group,):
            if each is not None and each.waiting:
                each.settle()

    def _without_optimizer(self, group: Group, pushed: list[Contribution]) -> Exception | None:
        """Why pushes for a round can't be applied: the optimizer that they count on isn't here.
        Sees to its config."""
        served, told = self.served, next((c.optimizer for c in pushed if c.optimizer is not None), None)
        if group.rounds.apart and served.updater is None:
            return KVStoreError(
                f"dist_{self.members.mode} needs an optimizer: call set_optimizer before the first push"
            )
        if told is not None and (told.event > served.event if group.rounds.apart else told.event != served.event):
            return KVStoreError(
                f"worker {pushed[0].rank} counts on its set_optimizer number {told.event}, and number {served.event} is"
                " the last that this server knows of"
            )
        if told is not None and not group.rounds.apart and told.digest != served.digest:
            try:
                self.enter(Changed(told.config, served.version + 1))
            except MXOptError as error:
                return error
        return None

    def _look_back(self, session: Session, step: int, pushed: list[Group]) -> None:
        """A worker begins a step with a push: raises where it has left out one that others made in
        a step before."""
        session.step = step
        for group in self.values.groups.values():
            if group in pushed:
                continue
            self._check_left_out(session.rank, group, step - 1, f"has begun step {step}")

    def _check_left_out(self, rank: int, group: Group, step: int, doing: str) -> None:
        """Raises where somebody has pushed in `step` or before for a round that a worker hasn't
        pushed for."""
        for c in group.rounds.open:
            if 0 < c.step <= step and c.number > group.rounds.last(rank):
                raise KVStoreError(
                    f"worker {rank} {doing} without having pushed key {group.parts[0].entry.key!r}, which worker"
                    f" {c.rank} pushed in step {c.step}: every worker has to push the same keys in a step"
                )

    def pull(self, session: Session, pull: m.Pull) -> None:
        parts = self.values.parts(pull.keys, pull.piece)
        self._wait(session, pull, parts, sum(p.weight.nbytes for p in parts), self._values)

    def push_rows(self, session: Session, push: m.PushRows) -> None:
        entry = self.values.entry(push.key)
        name, width = f"key {push.key!r}, rows", math.prod(entry.shape[1:])
        count = wire.size_of(push.data[0]) // 8
        most = min(entry.units, ROWS // (8 + width * entry.real.itemsize)) if entry.by_rows else entry.units
        if push.total > most:
            raise KVStoreError(f"{name}: {push.total} in one push, at most {most}: push them in parts")
        for frame, dtype, size in ((push.data[0], INT64, count), (push.data[1], entry.weight.dtype, count * width)):
            wire.array_of(frame, dtype, size, push.key)
        frames = session.gather(("rows", push.key), push.offset, push.total, count, push.data)
        if frames is None:
            self.answers.done(session, push.seq)
            return
        indices = wire.array_of(frames[0], INT64, push.total, push.key)
        data = wire.array_of(frames[1], entry.weight.dtype, push.total * width, push.key)
        if isinstance(entry, TableEntry):
            entry.check(indices)
        elif len(indices) and (indices[0] < 0 or indices[-1] >= entry.units or np.any(indices[1:] <= indices[:-1])):
            raise ProtocolError(f"{name}: numbers must ascend within 0 to {entry.units - 1}")
        value = RowSparse(data.reshape(len(indices), width), indices, (entry.units, width))
        keys = (None, push.key) if entry.pieces > 1 else ((push.key, 0),)
        self._take(session, push, keys, entry.parts, value, False)

    def pull_rows(self, session: Session, pull: m.PullRows) -> None:
        entry = self.values.entry(pull.key)
        ids = wire.array_of(pull.data[0], INT64, wire.size_of(pull.data[0]) // 8, pull.key)
        if isinstance(entry, TableEntry):
            entry.check(ids, ascending=False)
        elif len(ids) and (ids.min() < 0 or ids.max() >= entry.units):
            raise ProtocolError(f"key {pull.key!r}: row ids must be within 0 to {entry.units - 1}")

        def answer(request: Request) -> None:
            rows = entry.weight.read(ids) if entry.by_rows else np.ascontiguousarray(entry.rows()[ids])
            self.answers.data(session, m.Values(request.seq, [wire.bytes_of(rows)]))

        nbytes = len(ids) * math.prod(entry.shape[1:]) * entry.real.itemsize
        self._wait(session, pull, entry.parts, nbytes, answer)

    def list_rows(self, session: Session, ask: m.ListRows) -> None:
        entry = self.values.entry(ask.key)
        if not entry.by_rows:
            raise KVStoreError(f"key {ask.key!r} isn't stored by rows, so it has all of them")

        def answer(request: Request) -> None:
            ids = wire.bytes_of(entry.weight.as_they_lie()[1])
            part = bytes(ids[ask.offset : ask.offset + wire.CHUNK])  # a copy: the array may grow, and so move
            self.answers.data(session, m.Chunk(request.seq, len(ids), [part]))

        self._wait(session, ask, entry.parts, wire.CHUNK, answer)

    def _wait(
        self,
        session: Session,
        pull: m.Pull | m.PullRows | m.ListRows,
        parts: list[Part],
        nbytes: int,
        answer: Callable[[Request], None],
    ) -> None:
        """Lets `answer` answer a request as soon as its worker may see the values of `parts`."""
        if self.members.ended:
            lost = self.lost(session.rank, parts)
            if lost is not None:
                raise lost
        first = parts[0].group
        for part in parts[:1] if first is not None and first.parts is parts else parts:
            last = 0
            if part.group is not None:
                last = part.group.rounds.last(session.rank)
                if pull.step:
                    self._check_left_out(session.rank, part.group, pull.step, f"pulls in step {pull.step}")
            known = pull.round <= last or (
                self.members.lossy if part.group is None else part.group.rounds.has(session.rank, pull.round)
            )
            if not known:
                raise KVStoreError(
                    f"key {part.entry.key!r}: worker {session.rank} pulls what its push for round {pull.round} made of"
                    f" it, and its last push here was for round {last}: what it has pushed since is missing"
                )
        self.values.wait(session.wait(pull.seq, parts, pull.round, nbytes, answer))

    def _values(self, request: Request) -> None:
        if request.error is not None:
            self.answers.refuse_waiting(request, request.error)
            return
        parts = request.parts
        group = parts[0].group
        if len(parts) > 1:
            known = group is not None and group.parts is parts
            data: Frame = wire.bytes_of(
                group.values() if known else np.concatenate([p.weight.reshape(-1) for p in parts])
            )
        elif self.members.workers > 1 and (group is None or group.rounds.apart):
            data = bytes(parts[0].frame)
        else:
            # The array itself may be sent, without a copy: it can't change before the answer has
            # arrived, since no round of it is complete without this worker's next push.
            data = parts[0].frame
        self.answers.data(self.answers.sessions[request.rank], m.Values(request.seq, [data]))

    def lacks(self, session: Session) -> list[tuple[int, Key, int]]:
        """(rank, key, number) of the pushes of others that a worker waits for, some of them."""
        found: dict[tuple[int, Key, int], None] = {}
        for request in session.waiting.values():
            for part in request.parts:
                if part.group is not None:
                    counts = part.group.rounds.counts
                    for rank in part.group.rounds.lacking(session.rank):
                        found[rank, part.entry.key, counts[rank] + 1] = None
                if len(found) >= LACKS:
                    return list(found)[:LACKS]
        return list(found)

    def lost(self, rank: int, parts: Sequence[Part], pushing: bool = False) -> Exception | None:
        """Why a worker would wait in vain for pushes of others that have ended; None where it
        wouldn't."""
        for part in parts:
            group = part.group
            if group is None or (not pushing and group.rounds.has(rank, group.rounds.last(rank))):
                continue
            lost = group.rounds.lost(rank)
            if lost is not None:
                mine, theirs = group.rounds.counts[rank] + pushing, group.rounds.counts[lost]
                return JobFailedError(
                    f"worker {lost} has ended with {counted(theirs, 'push')} of key {part.entry.key!r}, so worker"
                    f" {rank} waits in vain for the round of its push number {mine}"
                )
        return None
