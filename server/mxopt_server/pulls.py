"""Requests of workers for values, for rows of them, and for the rows that there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mxopt.errors import KVStoreError, ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.wire import Frame
from mxopt_server import uneven
from mxopt_server.entries import Part
from mxopt_server.machine import Machine
from mxopt_server.tables import TableEntry
from mxopt_server.worker_session import Answer, Handlers, Session


class Pulls:
    """The handlers of these messages of `server`, one each."""

    def __init__(self, machine: Machine, server: int) -> None:
        self._values, self._members, self._server = machine.values, machine.members, server
        self.handlers: Handlers = {
            m.Pull: self.pull, m.PullRows: self.pull_rows, m.ListRows: self.list_rows,
        }  # fmt: skip

    def pull(self, session: Session, pull: m.Pull) -> None:
        parts = self._values.parts(pull.keys, pull.piece)
        self._wait(session, pull, parts, sum(p.weight.nbytes for p in parts), self.give)

    def pull_rows(self, session: Session, pull: m.PullRows) -> None:
        entry = self._values.entry(pull.key)
        ids = wire.rows_of(pull.data[0], pull.key)
        if isinstance(entry, TableEntry):
            entry.check(ids, self._server, ascending=False)
        elif len(ids) and (ids.min() < 0 or ids.max() >= entry.units):
            raise ProtocolError(f"key {pull.key!r}: row ids must be within 0 to {entry.units - 1}")

        def answer(session: Session, seq: int, parts: Sequence[Part]) -> None:
            frame = session.room(nbytes)
            into = wire.array_of(frame, entry.real, width * len(ids), pull.key).reshape(len(ids), width)
            if entry.by_rows:
                entry.weight.read(ids, into.reshape(len(ids), *entry.shape[1:]))
            elif len(ids):
                entry.rows().take(ids, axis=0, out=into, mode="clip")
            session.data(m.Values(seq, [], [frame]))

        width = math.prod(entry.shape[1:])
        nbytes = len(ids) * width * entry.real.itemsize
        self._wait(session, pull, entry.parts, nbytes, answer)

    def list_rows(self, session: Session, ask: m.ListRows) -> None:
        entry = self._values.entry(ask.key)
        if not entry.by_rows:
            raise KVStoreError(f"key {ask.key!r} isn't stored by rows, so it has all of them")

        def answer(session: Session, seq: int, parts: Sequence[Part]) -> None:
            ids = wire.bytes_of(entry.weight.as_they_lie()[1])
            part = bytes(ids[ask.offset : ask.offset + wire.CHUNK_BYTES])  # a copy: the array may grow, and so move
            session.data(m.Chunk(seq, len(ids), [part]))

        self._wait(session, ask, entry.parts, wire.CHUNK_BYTES, answer)

    def _wait(
        self,
        session: Session,
        pull: m.Pull | m.PullRows | m.ListRows,
        parts: Sequence[Part],
        nbytes: int,
        answer: Answer,
    ) -> None:
        """Calls `answer`, which takes `nbytes`, for a request as soon as its worker may see the
        values of `parts`. Raises ProtocolError where that is more than a message has: of keys or
        rows that are named again and again it could be any number of bytes."""
        if nbytes > wire.MAX_FRAME:
            raise ProtocolError(
                f"key {parts[0].entry.key!r}: {nbytes} bytes are asked for at once, an answer has at most"
                f" {wire.MAX_FRAME}"
            )
        if self._members.ended:
            lost = uneven.lost(session.rank, parts)
            if lost is not None:
                raise lost
        first = parts[0].group
        for part in parts[:1] if first is not None and first.parts is parts else parts:
            last = part.entry.round
            if part.group is not None:
                last = part.group.rounds.last(session.rank)
                if pull.step:
                    uneven.check_left_out(session.rank, part.group, pull.step, f"pulls in step {pull.step}")
            known = pull.round <= last or (
                self._members.lossy if part.group is None else part.group.rounds.has(session.rank, pull.round)
            )
            if not known:
                raise KVStoreError(
                    f"key {part.entry.key!r}: worker {session.rank} pulls what its push for round {pull.round} made of"
                    f" it, and its last push here was for round {last}: what it has pushed since is missing"
                )
        together = first is not None and first.parts is parts and not first.entry.sums
        if first is not None and together and first.rounds.may_see(session.rank, pull.round):
            answer(session, pull.seq, parts)
        else:
            session.when_seen(pull.seq, parts, pull.round, nbytes, answer)

    def give(self, session: Session, seq: int, parts: Sequence[Part]) -> None:
        """Sends a worker the values of parts."""
        group = parts[0].group
        data: Frame
        if len(parts) > 1:
            together = group is not None and group.parts is parts
            weights = group.flats if group is not None and together else [p.weight.reshape(-1) for p in parts]
            size = sum(map(len, weights))
            data = session.room(size * weights[0].itemsize)
            np.concatenate(weights, out=wire.array_of(data, weights[0].dtype, size, parts[0].entry.key))
        elif self._members.workers > 1 and self._members.apart:
            data = bytes(parts[0].frame)
        else:
            # The array itself may be sent, without a copy: it can't change before the answer has
            # arrived, since no round of it is complete without this worker's next push.
            data = parts[0].frame
        session.data(m.Values(seq, [], [data]))
