"""A journal's files have a bound: a checkpoint takes its place when it is large."""

from __future__ import annotations

from pathlib import Path

import pytest
from kept_peer import Served, trained
from mxopt_server import segments
from peer import push

from mxopt.kvstore import messages as m

LARGE = 4000  # bytes of a journal after which a checkpoint is wanted


def size_of(peer: Served) -> int:
    """The bytes of a server's files."""
    return sum(path.stat().st_size for path in peer.kept.folder.path.iterdir())


def round_of(peer: Served, number: int) -> None:
    """Both workers push once more."""
    for rank in (0, 1):
        seq = peer.server.sessions[rank].expects
        peer.ask(rank, push(seq, False, 1, number=number))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_files_have_a_bound(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", 1000)
    peer = trained(tmp_path, mode=mode)
    peer.kept.large, peer.kept.every = LARGE, 0.0
    size = size_of(peer)
    round_of(peer, 3)
    of_round = size_of(peer) - size
    exists, most, checkpoints = 0, 0, 0
    for number in range(4, 200):
        round_of(peer, number)
        full = peer.kept.full
        peer.kept.tick(exists)
        if mode == "sync" and full and exists == peer.kept.written:  # the scheduler names a cut
            for rank in (0, 1):
                peer.ask(rank, m.Cut(peer.server.sessions[rank].expects, number, True))
        if full:
            peer.kept._writer.wait()
            peer.kept.tick(exists)
            exists, checkpoints = peer.kept.written, checkpoints + 1
        most = max(most, size_of(peer))
    checkpoint = sum(path.stat().st_size for path in peer.kept.folder.path.glob("*.checkpoint"))
    assert checkpoints > 3
    assert most <= LARGE + 4 * of_round + 2 * checkpoint + 2 * segments.SIZE
    before = peer.content()
    peer.again()
    assert peer.content() == before
