"""Cuts: the points of a synchronous job that all its servers can go on from."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from kept_peer import Served, trained
from mxopt_server import records as r, segments
from mxopt_server.durability import Durability
from mxopt_server.epoch_folder import CHECKPOINT, SEGMENT, Folder, numbers
from mxopt_server.journal import Journal, encode, is_cut
from mxopt_server.kept import CUTS, cuts_of
from peer import init, push

from mxopt.errors import StatesError
from mxopt.kvstore import messages as m


def test_a_job_goes_on_from_a_cut_in_its_journals(tmp_path: Path) -> None:
    peer = trained(tmp_path)
    for rank in (0, 1):
        peer.ask(rank, m.Cut(6 - 3 * rank, 2, False))
    before = peer.content()
    for rank in (0, 1):
        peer.ask(rank, push(7 - 3 * rank, False, number=3))
    assert peer.content() != before
    assert cuts_of(peer.durability, 0) == [2]
    peer.again(2)
    assert peer.content() == before
    peer.again()
    assert peer.content() == before
    peer.again(0)
    assert peer.server.values.entries == {}


def with_cuts(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Durability, list[Path]]:
    """A journal with so many cuts, each behind an update, in segments of a few records each; and
    the files of these segments."""
    monkeypatch.setattr(segments, "SIZE", 200)
    home = Folder(folder / "server-0", 1)
    home.take_over()
    journal = Journal(home, False)
    for number in range(1, count + 1):
        journal.append(r.Update((("w", 0),), -1, number, np.zeros(500, np.float32), 0, None))
        journal.append(r.Cut(number))
    journal.close()
    return Durability("journal", folder), sorted(home.path.glob(f"*{SEGMENT}"))


def spoil(path: Path, at: int) -> None:
    """Changes a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_the_newest_cuts_are_found_without_reading_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durability, files = with_cuts(tmp_path, 40, monkeypatch)
    assert len(files) > 30
    newest = list(range(40 - CUTS + 1, 41))
    assert cuts_of(durability, 0) == newest
    spoil(files[0], 30)  # the header of a record: nobody looks so far back
    spoil(files[-3], 600)  # an update's value
    assert cuts_of(durability, 0) == newest
    with pytest.raises(StatesError, match="damaged"):  # who goes on from there reads it all
        Folder(tmp_path / "server-0", 2).take_over()
    spoil(files[-3], 30)
    with pytest.raises(StatesError, match="damaged"):
        cuts_of(durability, 0)


def test_a_cut_behind_a_record_that_is_not_there_in_full_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durability, files = with_cuts(tmp_path, 5, monkeypatch)
    more = segments.Writer(tmp_path / "more")
    for record in (r.Update((("w", 0),), -1, 6, np.zeros(500, np.float32), 0, None), r.Cut(6)):
        more.append(encode(record))
    more.close()
    spoil(more.path, 100)  # the disk had written what is behind it first when the power went
    files[-1].write_bytes(files[-1].read_bytes() + more.path.read_bytes()[segments.START.size :])
    assert cuts_of(durability, 0) == [1, 2, 3, 4, 5]
    Folder(tmp_path / "server-0", 2).take_over(5, is_cut(5))


def test_a_cut_at_which_workers_have_not_pushed_the_same_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peer = trained(tmp_path)
    peer.ask(0, push(6, False, number=3))
    for rank in (0, 1):
        peer.ask(rank, m.Cut(7 - 4 * rank, 2, True))
    assert "cut 2 is dropped: the workers haven't pushed the same before it" in caplog.text
    assert peer.server.machine.cut == 0
    peer.ask(0, m.Cut(8, 3, True))
    peer.ask(0, m.Cut(9, 4, True))
    assert "cut 3 is dropped: only workers [0] have come to it" in caplog.text
    assert numbers(peer.kept.folder.path, CHECKPOINT) == []


@pytest.mark.parametrize("orders", ["wv wv", "wv vw"])
def test_workers_that_push_keys_in_different_orders_have_a_cut_between_two_steps(orders: str, tmp_path: Path) -> None:
    peer = Served(tmp_path, 2)
    for seq, key in ((1, "w"), (2, "v")):
        peer.ask(0, init(seq, key))
    for rank, order in enumerate(orders.split()):
        seqs = itertools.count(3 if rank == 0 else 1)
        for number in (1, 2):
            for key in order:
                peer.ask(rank, push(next(seqs), False, keys=(key,), number=number))
        assert peer.server.machine.cut == 0
        peer.ask(rank, m.Cut(next(seqs), 2, False))
        peer.ask(rank, push(next(seqs), False, keys=(order[0],), number=3))
    assert peer.server.machine.cut == 2
    peer.again(2)
    assert {key: peer.server.values.present(key, 0) for key in "wv"} == {"w": 2, "v": 2}


def test_a_cut_that_comes_again_is_made_once(tmp_path: Path) -> None:
    peer = trained(tmp_path)
    for rank in (0, 1):
        peer.ask(rank, m.Cut(6 - 3 * rank, 2, False))
    size = peer.journal.nbytes()
    for rank in (0, 1):
        assert isinstance(peer.ask(rank, m.Cut(7 - 3 * rank, 2, True)), m.Done)
    assert peer.journal.nbytes() == size


@pytest.mark.parametrize("keeps", [False, True])
def test_a_cut_that_was_made_is_not_said_to_be_dropped(
    keeps: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peer = trained(tmp_path)
    for number in (2, 3):
        for rank in (0, 1):
            peer.ask(rank, m.Cut(4 + number - 3 * rank, number, keeps))
        assert peer.server.machine.cut == number
    assert "dropped" not in caplog.text
