"""Pushes of workers: gradients of whole values, and of rows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mxopt.errors import KVStoreError, MXOptError, ProtocolError
from mxopt.kvstore import compression, messages as m, wire
from mxopt.sparse import RowSparse
from mxopt.typing import Array
from mxopt_server import uneven
from mxopt_server.answers import Answers
from mxopt_server.contributions import ALL, Contribution
from mxopt_server.entries import Group, GroupKey, Part
from mxopt_server.machine import Machine
from mxopt_server.records import Changed, Update
from mxopt_server.sums import total
from mxopt_server.tables import TableEntry
from mxopt_server.worker_session import Answer, Handlers, Session

DEPTH = 4  # rounds a worker may be ahead before its pushes are no longer confirmed at once
PUSH_BYTES = 1 << 30  # bytes of one push of rows


class Pushes:
    """The handlers of these messages, one each. `values` answers a push that asks for the values,
    `depth` is how many of a worker's pushes are confirmed before their rounds are over."""

    def __init__(self, machine: Machine, answers: Answers, values: Answer, depth: int = DEPTH) -> None:
        self._machine, self._values, self._answers = machine, machine.values, answers
        self._members, self._served = machine.members, machine.served
        self._give, self._depth = values, depth
        self.handlers: Handlers = {
            m.Push: self.push, m.PushRows: self.push_rows,
        }  # fmt: skip

    def push(self, session: Session, push: m.Push) -> None:
        keys: GroupKey = tuple(push.keys) if len(push.keys) > 1 else ((push.keys[0], push.piece),)
        group = self._values.groups.get(keys)
        if group is not None:
            parts, size, dtype = group.parts, group.size, group.dtype
        else:
            parts = self._values.parts(push.keys, push.piece)
            size, dtype = sum(p.size for p in parts), parts[0].weight.dtype
        if push.codec:
            value = self._decompress(push, size).astype(dtype, copy=False)
        else:
            value = wire.array_of(push.data[0], dtype, size, push.keys[0])
        self._take(session, push, keys, group, parts, value, push.answer)

    def _decompress(self, push: m.Push, size: int) -> np.ndarray:
        if push.codec not in compression.CODECS.values():
            raise ProtocolError(f"there is no codec {push.codec}")
        expected = compression.encoded_size(push.codec, size)
        sent = wire.array_of(push.data[0], np.dtype(np.uint8), expected, push.keys[0])
        return compression.decode(sent, push.codec, push.threshold, size)

    def push_rows(self, session: Session, push: m.PushRows) -> None:
        entry = self._values.entry(push.key)
        name, width = f"key {push.key!r}, rows", math.prod(entry.shape[1:])
        count = wire.size_of(push.data[0]) // 8
        most = min(entry.units, PUSH_BYTES // (8 + width * entry.real.itemsize)) if entry.by_rows else entry.units
        if push.total > most:
            raise KVStoreError(f"{name}: {push.total} in one push, at most {most}: push them in parts")
        wire.array_of(push.data[0], wire.INT64, count, push.key)
        wire.array_of(push.data[1], entry.weight.dtype, count * width, push.key)
        frames = session.gather(("rows", push.key), push.offset, push.total, count, push.data)
        if frames is None:
            self._answers.done(session, push.seq)
            return
        indices = wire.rows_of(frames[0], push.key)
        data = wire.array_of(frames[1], entry.weight.dtype, push.total * width, push.key)
        if isinstance(entry, TableEntry):
            entry.check(indices)
        elif len(indices) and (indices[0] < 0 or indices[-1] >= entry.units or np.any(indices[1:] <= indices[:-1])):
            raise ProtocolError(f"{name}: numbers must ascend within 0 to {entry.units - 1}")
        value = RowSparse(data.reshape(len(indices), width), indices, (entry.units, width))
        keys = (None, push.key) if entry.pieces > 1 else ((push.key, 0),)
        self._take(session, push, keys, self._values.groups.get(keys), entry.parts, value, False)

    def _take(
        self,
        session: Session,
        push: m.Push | m.PushRows,
        keys: GroupKey,
        group: Group | None,
        parts: Sequence[Part],
        value: Array,
        answer: bool,
    ) -> None:
        """Hands a push to its rounds, and arranges the answer to the worker. `group` is that of
        `keys`, if there is one."""
        rank, number = session.rank, push.round
        if self._members.ended:
            lost = uneven.lost(rank, parts, pushing=True)
            if lost is not None:
                raise lost
        told = session.counts_on(push.config) if push.config else None
        contribution = Contribution(rank, number, value, told, push.update, push.step)
        shares = [(group, contribution)] if group is not None else self._values.shares(keys, parts, contribution)
        # Check all before taking any.
        new = [share for share in shares if share[0].rounds.is_new(rank, number, share[0].entry.key)]
        if push.step > session.step:
            self._look_back(session, push.step, [group for group, _ in new])
        for group, contribution in new:
            group.rounds.take(contribution)
            while turn := group.rounds.turn():
                self._end(group, *turn)
        first = shares[0][0].rounds
        if answer:
            self._answers.when_seen(session, push.seq, parts, number, value.nbytes, self._give, pushes=True)
        elif first.depth(rank) > self._depth:
            nbytes = value.data.nbytes if isinstance(value, RowSparse) else value.nbytes
            self._answers.when_seen(session, push.seq, parts, number, nbytes, self._done, pushes=True)
        else:
            for group, _ in shares:
                failed = group.rounds.error(rank, number)
                if failed is not None:
                    raise failed
            self._answers.done(session, push.seq)

    def _done(self, session: Session, seq: int, parts: Sequence[Part]) -> None:
        self._answers.done(session, seq)

    def _end(self, group: Group, rank: int, number: int, pushed: list[Contribution], wrong: Exception | None) -> None:
        """Makes a record of a round that is over, and answers the workers that waited for it."""
        first, entry, value = pushed[0], group.entry, None
        wrong = wrong or self._without_optimizer(rank != ALL, pushed)
        if wrong is None:
            value = first.value if len(pushed) == 1 else total([c.value for c in pushed])
        else:
            wrong = KVStoreError(f"key {entry.key!r}: {wrong}")
        self._machine.enter(Update(group.keys, rank, number, value, first.update, wrong))
        if self._served.whole and entry.pieces > 1:
            for part in entry.parts:
                if part.group is not None and part.group.waiting:
                    part.group.settle()
        elif group.waiting:
            group.settle()

    def _without_optimizer(self, apart: bool, pushed: list[Contribution]) -> Exception | None:
        """Why pushes for a round can't be applied: the optimizer that they count on isn't here. If
        it is, takes over its config. `apart`: the round is of one worker."""
        served = self._served
        if apart and served.updater is None:
            return KVStoreError(
                f"dist_{self._members.mode} needs an optimizer: call set_optimizer before the first push"
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
            if not apart and told.digest != served.digest and not served.stands(told):
                try:
                    self._machine.enter(Changed(told.config, served.version + 1))
                except MXOptError as error:
                    return error
            break
        return None

    def _look_back(self, session: Session, step: int, pushed: list[Group]) -> None:
        """A worker begins a step with a push: raises if it has left out one that others made in
        a step before."""
        session.step = step
        for group in self._values.groups.values():
            if group in pushed:
                continue
            uneven.check_left_out(session.rank, group, step - 1, f"has begun step {step}")
