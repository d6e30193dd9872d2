"""Cuts: the points of a synchronous job that all its servers can go on from."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from kept_peer import Served, trained
from mxopt_server.epoch_folder import CHECKPOINT, numbers
from mxopt_server.kept import cuts_of
from peer import init, push

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
