"""Requests of workers about the optimizer and its states."""

from __future__ import annotations

from mxopt.document import dump_document
from mxopt.errors import ProtocolError, counted
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.wire import Key
from mxopt.typing import Plain
from mxopt_server.arriving import joined
from mxopt_server.machine import Machine
from mxopt_server.records import Changed, Loaded, Optimizer
from mxopt_server.states import ABSENT
from mxopt_server.told import Told, unknown
from mxopt_server.worker_session import Handlers, Session

STATE_BYTES = 16  # bytes of states for each of the values, at most
TABLE_BYTES = 1 << 28  # bytes of values that a table counts as having, at least: its rows may come with their states


class StateRequests:
    """The handlers of these messages, one each."""

    def __init__(self, machine: Machine) -> None:
        self.values, self.served, self.members = machine.values, machine.served, machine.members
        self.machine = machine
        self.handlers: Handlers = {
            m.Config: self.config, m.SetOptimizer: self.set_optimizer, m.FetchStates: self.fetch_states,
            m.FetchOptimizer: self.fetch_optimizer, m.StoreStates: self.store_states,
        }  # fmt: skip

    def config(self, session: Session, part: m.Config) -> None:
        if part.total > wire.MAX_CONFIG:
            raise ProtocolError(f"an optimizer's config of {counted(part.total, 'byte')}, {wire.MAX_CONFIG} at most")
        wire.check_number(part.version, "the change of an optimizer")
        what = ("config", part.number)
        frames = session.arriving.gather(what, part.offset, part.total, wire.size_of(part.data[0]), part.data)
        if frames is not None:
            told = Told.of(part.number, part.event, wire.plain_of(joined(frames[0])), part.changed, part.drawn)
            changes = part.changed and self.members.apart and part.event == self.served.event
            version = self._change(told, part.version) if changes else 0  # where that is refused no push counts on it
            session.told = {0: None, part.number: told}
            session.give(m.Done(part.seq, version))
            return
        session.done(part.seq)

    def _change(self, told: Told, version: int) -> int:
        """Takes over a worker's changed config, the last of all workers' to come. `version` is the
        number that this server has given to the change before; an older one never replaces a newer.
        Returns its number."""
        if version == 0 and told.digest != self.served.digest:
            version = self.served.version + 1
        if version > self.served.version:
            self.machine.enter(Changed(told.config, version))
        return version

    def set_optimizer(self, session: Session, request: m.SetOptimizer) -> None:
        if request.config not in session.told:
            raise unknown(request.config)
        told = session.told[request.config]
        self.machine.enter(Optimizer(request.event, None if told is None else told.config))
        session.done(request.seq)

    def fetch_optimizer(self, session: Session, request: m.FetchOptimizer) -> None:
        if request.config not in session.told:
            raise unknown(request.config)
        if request.offset == 0:
            session.document = (None, dump_document(self.served.standing(session.told[request.config])))
        self._part(session, request.seq, None, request.offset)

    def fetch_states(self, session: Session, request: m.FetchStates) -> None:
        entry, served = self.values.entry(request.key), self.served
        if request.offset == 0:
            content: Plain = {"count": served.states.count(entry), "first": entry.first}
            content["num_update"] = served.updater.optimizer.num_update if served.updater else 0
            if served.states.state(entry) is not ABSENT:
                content["state"] = served.states.state(entry)
            session.document = (entry.key, dump_document(content))
        self._part(session, request.seq, entry.key, request.offset)

    def _part(self, session: Session, seq: int, key: Key | None, offset: int) -> None:
        """Answers with the part from a byte on of the states of a key, or of the optimizer."""
        if session.document is None or session.document[0] != key:
            what = "the optimizer is" if key is None else f"key {key!r}: states are"
            raise ProtocolError(f"{what} fetched from byte 0 on")
        document = session.document[1]
        session.data(m.Chunk(seq, len(document), [document[offset : offset + wire.CHUNK_BYTES]]))

    def store_states(self, session: Session, request: m.StoreStates) -> None:
        entry, frame = self.values.entry(request.key), request.data[0]
        limit = STATE_BYTES * max(entry.nbytes, TABLE_BYTES * entry.by_rows) + wire.PIECE_BYTES
        if request.total > limit:
            raise ProtocolError(f"key {request.key!r}: states of {counted(request.total, 'byte')}, {limit} at most")
        size = wire.size_of(frame)
        frames = session.arriving.gather(("states", request.key), request.offset, request.total, size, request.data)
        if frames is not None:
            self.machine.enter(Loaded(request.event, entry.key, bytes(wire.buffer_of(joined(frames[0])))))
        session.done(request.seq)
