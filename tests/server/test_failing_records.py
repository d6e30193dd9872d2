"""Records at which a server fails: named at the second time, and left out when the job is taken up
again."""

from __future__ import annotations

from pathlib import Path

import pytest
from kept_peer import Served, trained
from mxopt_server.failures import PLACE
from mxopt_server.kept import Hopeless
from mxopt_server.machine import OutOfMemory
from peer import push

from mxopt.kvstore import messages as m


def crashed(peer: Served, how: str = "Fatal Python error: Aborted\n\nStack") -> None:
    """The server dies while it applies its last record; by itself, where there is something to say
    about it."""
    applying = peer.kept.folder.path / "applying"
    applying.write_bytes(PLACE.pack(peer.journal.number, peer.journal._writer.size))
    (peer.kept.folder.path / "failure").write_text(how)


def test_a_record_at_which_servers_fail_twice_is_named_and_left_out_when_the_job_is_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peer = trained(tmp_path, mode="async")
    crashed(peer)
    peer.again(-2)
    assert "servers have failed at the update of key 'w' in round 2 before, by: Fatal Python error: Ab" in caplog.text
    before = peer.weight()
    place = next(iter(peer.kept._failures))
    (peer.kept.folder.path / "applying").write_bytes(PLACE.pack(*place))
    (peer.kept.folder.path / "failure").write_text("Fatal Python error: Segmentation fault\n")
    with pytest.raises(
        Hopeless, match=r"server 0 has failed 2 times at the update of key 'w' in round 2, the last tim"
    ):
        peer.again(-2)
    for goes_on in (-1, -2, -1):  # also when it is killed later, and taken up again
        peer.again(goes_on)
        assert "so it was left out" in peer.ask(1, push(1, False, 2, number=2)).text
        assert peer.weight() != before
    peer.again(-2)
    assert isinstance(peer.ask(1, push(1, False, 2, number=3)), m.Done)


def test_a_server_that_is_killed_in_a_record_has_not_failed_at_it(tmp_path: Path) -> None:
    peer = trained(tmp_path)
    before = peer.content()
    for _ in range(5):
        crashed(peer, "")
        peer.again(-2)
        assert peer.kept._failures == {}
    assert peer.content() == before


def test_a_job_that_goes_on_from_a_cut_begins_anew_with_failures(tmp_path: Path) -> None:
    peer = trained(tmp_path)
    for rank in (0, 1):
        peer.ask(rank, m.Cut(6 - 3 * rank, 2, False))
    crashed(peer)
    peer.again(2)
    assert peer.kept._failures == {}


def test_where_there_is_no_memory_for_an_update_the_server_fails_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = trained(tmp_path)
    before = peer.content()

    def none_left(*_: object) -> None:
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(peer.server.applier, "apply", none_left)
        peer.ask(0, push(6, False, number=3))
        with pytest.raises(OutOfMemory, match="no memory for the update of key 'w' in round 3: none left"):
            peer.ask(1, push(3, False, number=3))
    assert (peer.kept.folder.path / "applying").read_bytes() != PLACE.pack(0, 0)
    assert not peer.server.machine.intact
    assert peer.sent == []
    peer.again(-2)
    assert peer.content() != before
    assert peer.server.values.entries["w"].parts[0].group.rounds.done == 3  # type: ignore[union-attr]
