"""A server that is started again after any message goes on with the same bits, whatever the
optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from peer import Disk, Peer, config
from table import ROWS, Row

from mxopt.kvstore import messages as m, placement, wire
from mxopt.kvstore.session import Session

UNITS = 5


class Script:
    """A job of two workers by messages, in the order in which they come: (rank, message without its
    number)."""

    def __init__(self, row: Any, mode: str, form: str) -> None:
        self.mode, self.form = mode, form
        rng = np.random.default_rng(7)
        values = rng.normal(size=(UNITS, 2)).astype(np.float32)
        pieces = [values[:2], values[2:4], values[4:]] if form != "one piece" else [values]
        self.messages: list[tuple[int, Any]] = [(0, config(0, 1, row.make())), (0, m.SetOptimizer(0, 1, 1))]
        for piece, part in enumerate(pieces):
            self.messages.append(
                (0, m.Init(0, ["w"], "float32", [[UNITS, 2]], [[UNITS, 2]], 0, piece, 0, [part.tobytes()]))
            )
        for _ in range(3):
            for rank in (0, 1):
                grad = rng.normal(size=(UNITS, 2)).astype(np.float32)
                if form == "rows":
                    self.messages += [(rank, message) for message in self._rows(grad, sorted(rng.choice(5, 3, False)))]
                    continue
                for piece in range(len(pieces)):
                    part = grad[2 * piece : 2 * piece + 2] if len(pieces) > 1 else grad
                    self.messages.append(
                        (rank, m.Push(0, False, ["w"], piece, 0, 0, 0, 0.0, 0, 0, False, [part.tobytes()]))
                    )
            if mode == "async":
                for rank in (1, 0):  # each has seen another weight
                    self.messages.append((rank, m.Pull(0, ["w"], 0, 0)))

    @staticmethod
    def _rows(grad: np.ndarray, numbers: list[int]) -> list[m.PushRows]:
        frames = [np.array(numbers, np.int64), grad[numbers]]
        first, last = ([f[:2].tobytes() for f in frames], [f[2:].tobytes() for f in frames])
        return [m.PushRows(0, "w", 0, 0, 0, 3, 0, 0, first), m.PushRows(0, "w", 0, 0, 2, 3, 0, 0, last)]

    def run(self, restart_after: int | None) -> list[float]:
        """The weights at the end; after this number of messages the server is started again, with
        the records of before."""
        peer = Peer(2, self.mode, Disk())
        rounds: dict[tuple[int, int], int] = {}
        workers = [Worker(peer, rank) for rank in (0, 1)]
        for k, (rank, sent) in enumerate(self.messages):
            message = replace(sent)
            if isinstance(message, m.Push | m.PushRows):
                name = rank, getattr(message, "piece", 0)
                message.round = rounds[name] = rounds.get(name, 0) + (getattr(message, "offset", 0) == 0)
            workers[rank].session.send(0, message)
            if k == restart_after:
                peer.restart()
                for worker in workers:
                    worker.session.greet(worker.session.channels[0])
        assert [worker.session.deferred for worker in workers] == [None, None]
        assert all(worker.session.idle for worker in workers)
        return peer.weight()


class Worker:
    """A worker's session with a server in this process."""

    def __init__(self, peer: Peer, rank: int) -> None:
        self.peer, self.route = peer, b"route%d" % rank
        hello = m.Hello(wire.VERSION, "job", rank, 1, "token", 2, peer.mode, 1)
        self.session = Session(hello, ["here"], lambda server, endpoint: self._post, lambda: 0.0)
        peer.listeners[self.route] = self.session
        self.session.greet(self.session.channels[0])

    def _post(self, frames: list[Any], alone: bool) -> None:
        self.peer.server.handle(self.route, [bytes(f) for f in frames])


@pytest.mark.parametrize("form", ["one piece", "pieces", "rows"])
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_server_started_again_after_any_message_goes_on_with_the_same_bits(
    row: Row, mode: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form != "one piece":
        monkeypatch.setattr(placement, "PIECE_BYTES", 16)  # two rows
    script = Script(row, mode, form)
    expected = script.run(None)
    for message in range(len(script.messages)):
        assert script.run(message) == expected, f"after {type(script.messages[message][1]).__name__} {message}"
