"""A server without sockets, for tests of what it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mxopt_server import snapshot
from mxopt_server.server import Server

import mxopt
from mxopt import plain
from mxopt.document import dump_document
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.optimizer.config import optimizer_config

ONES = np.ones(2, np.float32).tobytes()


class Peer:
    """A server without sockets, and what it answers."""

    def __init__(self, workers: int = 1, mode: str = "sync") -> None:
        self.sent: list[tuple[bytes, object]] = []
        self.mode, self.workers = mode, workers
        self.server = self.started()
        for rank in range(workers):
            self.hello(rank)

    def started(self) -> Server:
        """A new server."""

        def send(route: bytes, message: object) -> None:
            self.sent.append((route, message))

        return Server(send, "job", 0, self.workers, "server", lambda: 0.0)

    def hello(self, rank: int, incarnation: str = "i", oldest: int = 1, **changes: object) -> object:
        fields = {"version": wire.VERSION, "job": "job", "workers": self.workers, "mode": self.mode} | changes
        return self.ask(
            rank,
            m.Hello(
                fields["version"],
                fields["job"],
                rank,
                f"{incarnation}{rank}",
                fields["workers"],
                fields["mode"],
                1,
                oldest,
            ),
        )

    def ask(self, rank: int, message: object) -> object:
        """The last answer to rank, once it has sent a message."""
        self.server.handle(b"route%d" % rank, [bytes(f) for f in m.encode(message)])
        answers = [x for route, x in self.sent if route == b"route%d" % rank]
        self.sent = []
        return answers[-1] if answers else None

    def restart(self, folder: Path) -> None:
        """Goes on with a new server, from a snapshot of the one so far."""
        (folder / "snapshot").write_bytes(dump_document(snapshot.record(self.server)))
        self.server = self.started()
        assert snapshot.restore(self.server, folder / "snapshot")
        for rank in range(self.workers):
            self.hello(rank)

    def weight(self, key: object = "w") -> list[float]:
        return self.server.values.entries[key].weight.tolist()


def init(seq: int, key: object = "w") -> m.Init:
    return m.Init(seq, key, "float32", [2], [2], 0, 0, [np.zeros(2, np.float32).tobytes()])


def push(seq: int, answer: bool = True, value: float = 1, keys: tuple[object, ...] = ("w",)) -> m.Push:
    data = np.full(2 * len(keys), value, np.float32).tobytes()
    return m.Push(seq, answer, list(keys), 0, 0, 0.0, 0, 0, [data])


def config(seq: int, number: int, what: mxopt.Optimizer | dict[str, object]) -> m.Config:
    document = plain.pack(what if isinstance(what, dict) else optimizer_config(what))
    return m.Config(seq, number, 0, len(document), [document])


def with_sgd(peer: Peer) -> Peer:
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, 0)), m.Done)
    peer.server.served.install(optimizer_config(mxopt.create("sgd", learning_rate=1.0)))
    assert isinstance(peer.ask(0, init(2)), m.Done)
    return peer
