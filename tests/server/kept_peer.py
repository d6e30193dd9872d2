"""A server without sockets whose state is kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mxopt_server import snapshot
from mxopt_server.durability import Durability
from mxopt_server.kept import Kept
from mxopt_server.server import Server
from peer import Peer, config, init, push

import mxopt
from mxopt.document import dump_document
from mxopt.kvstore import messages as m


class Served(Peer):
    """A server without sockets whose state is kept in `folder`, and which can be started again."""

    def __init__(self, folder: Path, workers: int = 1, mode: str = "sync", kind: str = "journal") -> None:
        self.durability = Durability(kind, folder, 0.0)
        super().__init__(workers, mode)

    def started(self, goes_on: int = -1) -> Server:
        self.epochs = getattr(self, "epochs", 0) + 1
        self.kept = Kept(self.durability, "job", 0, self.epochs, goes_on)
        self.journal = self.kept.journal
        made = super().started()
        self.kept.restore(made)
        return made

    def again(self, goes_on: int = -1) -> None:
        """Starts the server again; its workers say Hello."""
        if self.journal is not None:
            self.journal.close()
        self.server = self.started(goes_on)
        for rank in range(self.workers):
            self.hello(rank)

    def content(self) -> bytes:
        """All of its state."""
        return dump_document(snapshot.record(self.server))


def trained(folder: Path, row: Any = None, mode: str = "sync", kind: str = "journal") -> Served:
    """A server with two workers' pushes of two rounds, by the optimizer of `row`."""
    peer = Served(folder, 2, mode, kind)
    peer.ask(0, config(1, 1, mxopt.create("adam") if row is None else row.make()))
    peer.ask(0, m.SetOptimizer(2, 1, 1))
    peer.ask(0, init(3))
    for number in (1, 2):
        for rank in (0, 1):
            peer.ask(rank, push(number + 3 - 3 * rank, False, rank + 1, number=number))
    return peer
