"""Snapshots are of one moment, whatever the server does while they are written, and never make it
wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mxopt_server import snapshot
from mxopt_server.attached import Attached
from mxopt_server.moment import Moment
from peer import Peer, push, with_sgd
from table import Row

from mxopt.document import dump_document, load_document
from mxopt.kvstore import messages as m, placement
from mxopt.optimizer.config import optimizer_config

UNITS = 9


class Held(Moment):
    """A moment whose reader waits, after a number of pieces, until `go` is set."""

    def __init__(self, moment: Moment, pieces: int, reached: threading.Event, go: threading.Event) -> None:
        self.__dict__ = moment.__dict__
        self.left, self.reached, self.go = pieces, reached, go

    def read(self, array: np.ndarray) -> Iterator[Any]:
        for piece in super().read(array):
            if self.left == 0:
                self.reached.set()
                assert self.go.wait(30)
            self.left -= 1
            yield piece


def peer_with(row: Row, mode: str) -> Peer:
    """A server with a value of several pieces and one of one piece, both updated once by each of
    two workers."""
    peer = Peer(2, mode)
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, 0)), m.Done)
    peer.server.served.install(optimizer_config(row.make()))
    for piece in range(5):
        value = np.full(2 if piece < 4 else 1, piece, np.float32).tobytes()
        assert isinstance(
            peer.ask(0, m.Init(2 + piece, ["w"], "float32", [[UNITS]], [[UNITS]], 0, piece, 0, [value])), m.Done
        )
    assert isinstance(peer.ask(0, m.Init(7, ["v"], "float32", [[1]], [[1]], 0, 0, 0, [bytes(4)])), m.Done)
    return peer


def push_all(peer: Peer, first: tuple[int, int], value: float) -> None:
    for rank in (0, 1):
        for k, (key, piece) in enumerate([*(("w", p) for p in range(5)), ("v", 0)]):
            data = np.full(2 if key == "w" and piece < 4 else 1, value, np.float32).tobytes()
            answer = peer.ask(rank, m.Push(first[rank] + k, False, [key], piece, 0, 0, 0, 0.0, 0, 0, False, [data]))
            assert isinstance(answer, m.Done)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("name", ["sgd", "adam", "lamb", "dcasgd"])
def test_what_changes_while_a_snapshot_is_written_is_in_it_as_it_was(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "PIECE_BYTES", 8)
    peer = peer_with(Row(name, **({"momentum": 0.9} if name in ("sgd", "dcasgd") else {})), mode)
    push_all(peer, (8, 1), 1.0)
    expected = dump_document(snapshot.record(peer.server))
    make: Callable[..., Moment] = snapshot.moment
    for pieces in range(6):
        reached, go = threading.Event(), threading.Event()
        monkeypatch.setattr(snapshot, "moment", lambda s, n=pieces, r=reached, g=go: Held(make(s), n, r, g))
        again = Peer(2, mode)
        (tmp_path / "first").write_bytes(expected)
        assert snapshot.restore(again.server, tmp_path / "first")
        for rank in (0, 1):
            again.hello(rank)
        again.server.sessions[0].expects = again.server.sessions[1].expects = 1
        attending = Attached(again.server, tmp_path / f"s{pieces}", 0.0)
        attending.save()
        assert reached.wait(30)
        push_all(again, (1, 1), 2.0)
        assert again.weight() != peer.weight()
        go.set()
        attending.wait()
        assert (tmp_path / f"s{pieces}").read_bytes() == expected


def test_a_failed_snapshot_leaves_the_old_one_and_the_server_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = with_sgd(Peer(mode="async"))
    attending = Attached(peer.server, tmp_path / "s", 1)
    attending.save()
    attending.wait()
    before = (tmp_path / "s").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    peer.ask(0, push(3))
    monkeypatch.setattr("mxopt.document.os.fsync", full)
    attending.save()
    attending.wait()
    assert (tmp_path / "s").read_bytes() == before
    assert load_document(before)["entries"][0]["key"] == "w"
    assert isinstance(peer.ask(0, push(4)), m.Values)
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "s"]
