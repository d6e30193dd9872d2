"""A server without sockets, for tests of what it answers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mxopt_server import snapshot
from mxopt_server.machine import Machine
from mxopt_server.records import Optimizer, Record, Update
from mxopt_server.server import Server

import mxopt
from mxopt import plain
from mxopt.document import dump_document
from mxopt.errors import MXOptError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.session import Session
from mxopt.kvstore.wire import Key
from mxopt.optimizer.config import optimizer_config

ONES = np.ones(2, np.float32).tobytes()


class Disk:
    """A journal in memory."""

    together = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        if isinstance(record, Update) and isinstance(record.value, np.ndarray):
            record = replace(record, value=record.value.copy())
        self.records.append(record)

    def commit(self) -> None: ...

    def replay(self, machine: Machine) -> None:
        """Gives a fresh server the state of the one before."""
        for record in self.records:
            with contextlib.suppress(MXOptError):  # as the first time
                machine.apply(record)


class Peer:
    """A server without sockets, and what it answers. The rounds of pushes and pulls that name none
    are counted."""

    def __init__(self, workers: int = 1, mode: str = "sync", journal: Any = None) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self.mode, self.workers = mode, workers
        self.journal: Any = journal
        self.listeners: dict[bytes, Session] = {}  # who is told at once
        self.starts = 0
        self.sequence: dict[tuple[int, int], int] = {}
        self.server = self.started()
        for rank in range(workers):
            self.hello(rank)

    def started(self) -> Server:
        """A new server."""

        def send(route: bytes, message: Any) -> None:
            if route in self.listeners:
                self.listeners[route].take(0, message)
            else:
                self.sent.append((route, message))

        self.starts += 1
        made = Server(send, "job", 0, self.workers, self.starts, lambda: 0.0, self.journal)
        made.handshakes.hear((rank, 1, "token") for rank in range(self.workers))
        return made

    def hello(self, rank: int, epoch: int = 1, token: str = "token", **changes: Any) -> Any:
        fields: dict[str, Any] = {"version": wire.VERSION, "job": "job", "workers": self.workers, "mode": self.mode}
        said = fields | changes
        hello = m.Hello(said["version"], said["job"], rank, epoch, token, said["workers"], said["mode"], 1)
        return self.ask(rank, hello)

    def ask(self, rank: int, message: Any) -> Any:
        """The last answer to rank, once it has sent a message."""
        if getattr(message, "round", None) == 0:
            self._count(rank, message)
        self.server.handle(b"route%d" % rank, [bytes(f) for f in m.encode(message)])
        answers = [x for route, x in self.sent if route == b"route%d" % rank]
        self.sent = []
        return answers[-1] if answers else None

    def _count(self, rank: int, message: Any) -> None:
        """Gives a message the round of its keys: the next where it is a push that hasn't been sent
        before."""
        if (rank, message.seq) not in self.sequence:
            key, new = (getattr(message, "keys", None) or [message.key])[0], isinstance(message, m.Push | m.PushRows)
            entry, piece = self.server.values.entries.get(key), getattr(message, "piece", 0)
            group = entry.parts[piece].group if entry is not None and piece < len(entry.parts) else None
            self.sequence[rank, message.seq] = (group.rounds.last(rank) if group is not None else 0) + new
        message.round = self.sequence[rank, message.seq]

    def restart(self, folder: Path | None = None) -> None:
        """Goes on with a new server: from a snapshot of the one so far, or from its journal."""
        before, self.server = self.server, self.started()
        self.sequence = {}
        if folder is not None:
            (folder / "snapshot").write_bytes(dump_document(snapshot.record(before)))
            assert snapshot.restore(self.server, folder / "snapshot")
        if self.journal is not None:
            self.journal.replay(self.server.machine)
        for rank in range(0 if self.listeners else self.workers):
            self.hello(rank)

    def weight(self, key: Key = "w") -> list[Any]:
        weight: list[Any] = self.server.values.entries[key].weight.tolist()
        return weight


def note(sent: list[Any], route: bytes, message: Any) -> bool:
    """Takes a message as a socket with room for it does."""
    sent.append(message)
    return True


def init(seq: int, key: Key = "w") -> m.Init:
    return m.Init(seq, [key], "float32", [[2]], [[2]], 0, 0, 0, [np.zeros(2, np.float32).tobytes()])


def push(
    seq: int,
    answer: bool = True,
    value: float = 1,
    keys: tuple[Key, ...] = ("w",),
    number: int = 0,
    step: int = 0,
    later: bool = False,
) -> m.Push:
    data = np.full(2 * len(keys), value, np.float32).tobytes()
    return m.Push(seq, answer, list(keys), 0, number, step, 0, 0.0, 0, 0, later, [data])


def config(
    seq: int,
    number: int,
    what: mxopt.Optimizer | dict[str, object],
    event: int = 1,
    changed: bool = False,
    version: int = 0,
    drawn: bool = False,
) -> m.Config:
    document = plain.pack(what if isinstance(what, dict) else optimizer_config(what))
    return m.Config(seq, number, event, changed, version, drawn, 0, len(document), [document])


def with_sgd(peer: Peer) -> Peer:
    peer.server.machine.enter(Optimizer(1, optimizer_config(mxopt.create("sgd", learning_rate=1.0))))
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, 0)), m.Done)  # known already
    assert isinstance(peer.ask(0, init(2)), m.Done)
    return peer
