"""Pushes of workers: gradients of whole values, and of rows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.errors import KVStoreError, ProtocolError
from mxopt.kvstore import compression, messages as m, wire
from mxopt_server import uneven
from mxopt_server.arriving import joined
from mxopt_server.contributions import Contribution, PushedRows
from mxopt_server.entries import Group, GroupKey, Part
from mxopt_server.machine import Machine
from mxopt_server.tables import TableEntry
from mxopt_server.told import unknown
from mxopt_server.worker_session import Answer, Handlers, Session

DEPTH = 4  # rounds a worker may be ahead before its pushes are no longer confirmed at once
PUSH_BYTES = 1 << 30  # bytes of one push of rows

Pushed = tuple[GroupKey, Sequence[Part], Any]  # to which parts, and what: an array flat over them, or PushedRows


class Pushes:
    """The handler of these messages of `server`. `values` answers a push that asks for the values,
    `depth` is how many of a worker's pushes are confirmed before their rounds are over."""

    def __init__(self, machine: Machine, server: int, values: Answer, depth: int = DEPTH) -> None:
        self._machine, self._values, self._server = machine, machine.values, server
        self._members, self._served = machine.members, machine.served
        self._give, self._depth = values, depth
        self.handlers: Handlers = {
            m.Push: self.push, m.PushRows: self.push,
        }  # fmt: skip

    def push(self, session: Session, push: m.Push | m.PushRows) -> None:
        """Hands a push to its rounds, and arranges the answer to the worker."""
        pushed = self._values_of(push) if isinstance(push, m.Push) else self._rows_of(session, push)
        if pushed is None:
            session.done(push.seq)
            return
        keys, parts, value = pushed
        rank, number = session.rank, push.round
        if self._members.ended:
            lost = uneven.lost(rank, parts, pushing=True)
            if lost is not None:
                raise lost
        if push.config not in session.told:
            raise unknown(push.config)
        if push.update and self._members.workers > 1:
            raise ProtocolError(f"worker {rank} counts the updates, which {self._members.workers} workers make")
        contribution = Contribution(rank, number, value, session.told[push.config], push.update, push.step)
        group = self._values.groups.get(keys)
        shares = [(group, contribution)] if group is not None else self._values.shares(keys, parts, contribution)
        new: list[tuple[Group, Contribution]] = []  # check all before taking any
        for share in shares:
            if share[0].rounds.is_new(rank, number, share[0].entry.key):
                new.append(share)
        if push.step > session.step:
            self._look_back(session, push.step, [group for group, _ in new])
        for group, contribution in new:
            group.rounds.take(contribution)
            over = False
            while turn := group.rounds.turn():
                self._machine.end_round(group, *turn)
                over = True
            if over and self._served.whole and group.entry.pieces > 1:
                for part in group.entry.parts:  # those before may have waited for this one
                    if part.group is not None and part.group.waiting:
                        part.group.settle()
            elif over and group.waiting:
                group.settle()
        first, asks = shares[0][0], isinstance(push, m.Push) and push.answer
        far = first.rounds.depth(rank) > self._depth
        if asks:
            waits = len(shares) > 1 or bool(first.entry.sums) or not first.rounds.may_see(rank, number)
        else:
            waits = far
            if waits:
                session.hurry()  # what waits for others takes up the worker's window
        if waits:
            answer = self._give if asks else _done
            free = isinstance(push, m.Push) and push.answer and push.later and not far
            session.when_seen(push.seq, parts, number, value.nbytes, answer, pushes=True, free=free)
            return
        for group, _ in shares:
            failed = group.rounds.error(rank, number)
            if failed is not None:
                raise failed
        if asks:
            self._give(session, push.seq, parts)
        elif isinstance(push, m.Push) and push.later:
            session.later(push.seq, value.nbytes)
        else:
            session.done(push.seq)

    def _look_back(self, session: Session, step: int, pushed: list[Group]) -> None:
        """A worker begins a step with a push: raises if it has left out one that others made in
        a step before."""
        session.step = step
        for group in self._values.groups.values():
            if group in pushed:
                continue
            uneven.check_left_out(session.rank, group, step - 1, f"has begun step {step}")

    # What is pushed.

    def _values_of(self, push: m.Push) -> Pushed:
        keys: GroupKey = tuple(push.keys) if len(push.keys) > 1 else ((push.keys[0], push.piece),)
        group = self._values.groups.get(keys)
        if group is not None:
            parts, size, dtype = group.parts, group.size, group.dtype
        else:
            parts = self._values.parts(push.keys, push.piece)
            size, dtype = sum(p.size for p in parts), parts[0].weight.dtype
            if size * dtype.itemsize > wire.MAX_FRAME:  # as few bits may stand for
                raise ProtocolError(
                    f"key {push.keys[0]!r}: {size} elements in a push of at most {wire.MAX_FRAME} bytes"
                )
        if push.codec:
            return keys, parts, self._decompress(push, size).astype(dtype, copy=False)
        return keys, parts, wire.array_of(push.data[0], dtype, size, push.keys[0])

    def _decompress(self, push: m.Push, size: int) -> np.ndarray:
        if push.codec not in compression.CODECS.values():
            raise ProtocolError(f"there is no codec {push.codec}")
        if push.codec == compression.CODECS["2bit"] and push.threshold <= 0:
            raise ProtocolError(f"key {push.keys[0]!r}: two bits stand for a threshold above 0, got {push.threshold}")
        expected = compression.encoded_size(push.codec, size)
        sent = wire.array_of(push.data[0], np.dtype(np.uint8), expected, push.keys[0])
        return compression.decode(sent, push.codec, push.threshold, size)

    def _rows_of(self, session: Session, push: m.PushRows) -> Pushed | None:
        """The same of rows; None where more of them are to come."""
        entry = self._values.entry(push.key)
        name, width = f"key {push.key!r}, rows", math.prod(entry.shape[1:])
        count = wire.size_of(push.data[0]) // 8
        most = min(entry.units, PUSH_BYTES // (8 + width * entry.real.itemsize)) if entry.by_rows else entry.units
        if push.total > most:
            raise KVStoreError(f"{name}: {push.total} in one push, at most {most}: push them in parts")
        wire.array_of(push.data[0], wire.INT64, count, push.key)
        wire.array_of(push.data[1], entry.weight.dtype, count * width, push.key)
        frames = session.arriving.gather(("rows", push.key), push.offset, push.total, count, push.data)
        if frames is None:
            return None
        indices = wire.rows_of(joined(frames[0]), push.key)
        if isinstance(entry, TableEntry):
            entry.check(indices, self._server)
        elif len(indices) and (indices[0] < 0 or indices[-1] >= entry.units or np.any(indices[1:] <= indices[:-1])):
            raise ProtocolError(f"{name}: numbers must ascend within 0 to {entry.units - 1}")
        arrays = []
        for numbers, rows in zip(*frames, strict=True):
            size = wire.size_of(numbers) // 8
            arrays.append(wire.array_of(rows, entry.weight.dtype, size * width, push.key).reshape(size, width))
        value = PushedRows(arrays, indices, (entry.units, width))
        return (None, push.key) if entry.pieces > 1 else ((push.key, 0),), entry.parts, value


def _done(session: Session, seq: int, parts: Sequence[Part]) -> None:
    session.done(seq)
