"""Rounds: which pushes make one update, and what a worker hears that has left one out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peer import Disk, Peer, init, push, with_sgd

import mxopt
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.optimizer.config import optimizer_config


def test_grouping_keys_differently_gives_the_same_rounds() -> None:
    peer = Peer(2)
    for k, key in enumerate("abc"):
        peer.ask(0, init(1 + k, key))
    peer.ask(0, push(4, False, 1, ("a", "b", "c")))
    peer.ask(1, push(1, False, 10, ("b",)))
    assert [peer.weight(k) for k in "abc"] == [[0, 0], [11, 11], [0, 0]]
    peer.ask(1, push(2, False, 20, ("a", "c")))
    assert [peer.weight(k) for k in "abc"] == [[21, 21], [11, 11], [21, 21]]
    peer.ask(0, push(5, False, 5, ("a", "b", "c")))
    answer = peer.ask(1, push(3, True, 6, ("a", "b", "c")))
    assert np.frombuffer(answer.data[0], np.float32).tolist() == [11] * 6


def test_a_push_that_is_missing_is_an_error_and_never_skipped() -> None:
    for mode in ("sync", "async"):
        peer = with_sgd(Peer(mode=mode))
        assert isinstance(peer.ask(0, push(3, number=1)), m.Values)
        answer = peer.ask(0, push(4, number=3))
        assert "worker 0 pushes for round 3, and its last push here was for round 1" in answer.text
        assert "'w'" in answer.text
        assert "its last push here was for round 1" in peer.ask(0, m.Pull(5, ["w"], 0, 2)).text
        assert isinstance(peer.ask(0, push(6, number=2)), m.Values)
        assert peer.weight() == [-2, -2]


def test_pushes_of_different_steps_are_never_summed() -> None:
    peer = with_sgd(Peer(2))
    assert isinstance(peer.ask(0, push(3, False, step=7)), m.Done)
    error = "key 'w': worker 0 pushed for round 1 in step 7, worker 1 in step 8"
    assert error in peer.ask(1, push(1, step=8)).text
    assert error in peer.ask(1, push(1, number=1, step=8)).text  # asked again
    assert peer.weight() == [0, 0]
    peer.ask(0, push(4, False, step=8))
    assert isinstance(peer.ask(1, push(2)), m.Values)  # a worker that counts no steps differs from nobody
    assert peer.weight() == [-2, -2]


def test_a_round_that_ended_with_an_error_is_over_for_who_comes_late() -> None:
    peer = with_sgd(Peer(3, journal=Disk()))
    peer.ask(0, push(3, step=1))
    assert "in step 2" in peer.ask(1, push(1, step=2)).text
    for _ in range(2):
        assert "in step 2" in peer.ask(2, push(1, number=1, step=1)).text
        peer.restart()
        peer.server.handle(b"route2", m.encode(push(1, number=1, step=1)))
        assert "in step 2" in peer.sent.pop()[1].text
        peer.restart()
    for rank in range(3):
        peer.ask(rank, push(1, number=2))
    assert peer.weight() == [-3, -3]


@pytest.mark.parametrize("then", [m.Pull(2, ["v"], 0, 0, 1), push(2, keys=("w",), step=2)], ids=["pull", "next"])
def test_a_worker_that_has_left_out_a_key_is_told_by_its_pull_or_next_step(then: Message) -> None:
    peer = with_sgd(Peer(2))
    peer.ask(0, init(3, "v"))
    peer.ask(0, push(4, False, keys=("w",), step=1))
    peer.ask(0, push(5, False, keys=("v",), step=1))
    peer.ask(1, push(1, False, keys=("w",), step=1))
    answer = peer.ask(1, then)
    assert "without having pushed key 'v', which worker 0 pushed in step 1" in answer.text
    peer.server.handle(b"route0", m.encode(push(6, keys=("w",), number=2, step=2)))  # who is ahead has left out nothing
    assert peer.sent == []


def test_a_server_started_again_has_the_rounds_that_are_over_and_is_sent_the_others_again() -> None:
    peer = with_sgd(Peer(2, journal=Disk()))
    assert peer.ask(0, push(3, False)) is None  # Done is a promise
    assert isinstance(peer.ask(1, push(1, False)), m.Done)
    assert peer.ask(0, push(4, False)) is None
    peer.restart()
    assert peer.weight() == [-2, -2]
    assert isinstance(peer.ask(0, push(1, False, number=1)), m.Done)  # known already: not applied again
    assert peer.ask(0, push(2, False, number=2)) is None
    assert isinstance(peer.ask(1, push(1, False, number=2)), m.Done)
    assert peer.weight() == [-4, -4]


def test_a_server_started_again_knows_how_far_ahead_a_worker_of_ssp_is() -> None:
    peer = with_sgd(Peer(2, "ssp", Disk()))  # staleness 1
    assert isinstance(peer.ask(0, push(3)), m.Values)
    peer.restart()
    assert peer.ask(0, push(1)) is None
    peer.server.handle(b"route1", [bytes(f) for f in m.encode(push(1, False, number=1))])
    assert [route for route, x in peer.sent if isinstance(x, m.Values)] == [b"route0"]


def test_a_server_that_goes_on_from_a_snapshot_counts_what_it_has_lost_in_async(tmp_path: Path) -> None:
    peer = with_sgd(Peer(mode="async"))
    assert isinstance(peer.ask(0, push(3, number=1)), m.Values)
    peer.restart(tmp_path)
    assert isinstance(peer.ask(0, push(1, number=4)), m.Values)
    assert peer.weight() == [-2, -2]
    assert peer.server.members.lost == 2
    assert "is missing" in peer.ask(0, push(2, number=6)).text


def test_a_worker_that_comes_anew_in_ssp_starts_at_the_slowests_count() -> None:
    peer = with_sgd(Peer(3, "ssp", Disk()))  # staleness 1
    for rank, count in ((0, 4), (1, 3), (2, 1)):
        for number in range(1, count + 1):
            peer.ask(rank, push(2 * (rank == 0) + number, False, number=number))
    peer.server.set_ended({2})
    peer.server.handshakes.hear([(2, 2, "another")])
    peer.server.set_ended(set())
    peer.restart()
    peer.server.handshakes.hear([(2, 2, "another")])
    assert isinstance(peer.hello(2, 2, "another"), m.Ready)
    assert peer.ask(2, m.Rounds(1, ["w"])) == m.Present(1, [3])
    peer.restart()
    peer.server.handshakes.hear([(2, 2, "another")])
    peer.hello(2, 2, "another")
    assert isinstance(peer.ask(2, push(1, number=4)), m.Values)
    assert peer.hello(0).lacks == []


def test_what_a_process_waited_for_is_never_answered_to_the_one_that_replaces_it() -> None:
    """By its number the other would take it for an answer of its own."""
    peer = with_sgd(Peer(2, "ssp"))  # staleness 1
    for number in (1, 2):
        peer.ask(0, push(2 + number, number=number))  # the second waits for worker 1
    peer.server.handshakes.hear([(0, 2, "another")])
    hello = m.Hello(wire.VERSION, "job", 0, 2, "another", 2, "ssp", 1)
    for message in (hello, push(1, False, number=1), push(2, False, number=2)):
        peer.server.handle(b"another", m.encode(message))
    peer.server.handle(b"route1", m.encode(push(1, False, number=1)))
    said = [x for route, x in peer.sent if route == b"another"]
    assert [x.seq for x in said if not isinstance(x, m.Ready)] == [1, 2]


def test_a_push_before_the_optimizer_is_refused_and_its_round_is_over() -> None:
    peer = Peer(mode="async", journal=Disk())
    peer.ask(0, init(1))
    assert "needs an optimizer" in peer.ask(0, push(2)).text
    peer.restart()
    assert "needs an optimizer" in peer.ask(0, push(1, number=1)).text
    assert isinstance(peer.ask(0, m.SetOptimizer(2, 1, 0)), m.Done)
    peer.server.served.install(optimizer_config(mxopt.create("sgd", learning_rate=1.0)))
    assert isinstance(peer.ask(0, push(3, number=2)), m.Values)
    assert peer.weight() == [-1, -1]


def test_a_worker_that_waits_long_hears_whose_push_of_which_key_is_missing() -> None:
    peer = with_sgd(Peer(3))
    peer.ask(0, init(3, "v"))
    for seq in (4, 6):
        peer.ask(0, push(seq, False, keys=("v",)))
        peer.ask(0, push(seq + 1, False))
    for seq in (1, 2):
        peer.ask(2, push(seq, False))
    peer.ask(1, push(1, False))
    assert peer.ask(0, m.Pull(8, ["v", "w"], 0, 0)) is None
    assert peer.hello(0).lacks == [(1, "v", 1), (2, "v", 1), (1, "w", 2)]
    assert peer.hello(1).lacks == []
    peer = with_sgd(Peer(2, "ssp"))
    for seq in (3, 4):
        peer.ask(0, push(seq))
    assert peer.hello(0).lacks == [(1, "w", 1)]


def test_a_push_that_nobody_waits_for_and_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = with_sgd(Peer(2))
    monkeypatch.setattr(peer.server.served.updater.optimizer, "update_multi_precision", lambda *_: 1 / 0)  # type: ignore[union-attr]
    assert isinstance(peer.ask(0, push(3, False)), m.Done)
    assert "ZeroDivisionError" in peer.ask(1, push(1, False)).text
    assert isinstance(peer.ask(1, m.Pull(2, ["w"], 0, 0)), m.Values)


@pytest.mark.parametrize("journal", [False, True])
def test_a_push_whose_values_may_come_later_is_done_where_its_worker_says_hello(journal: bool) -> None:
    """But under a journal, where Done says that its round is over."""
    peer = with_sgd(Peer(2, journal=Disk() if journal else None))
    asking = push(3, True, later=True)
    assert peer.ask(0, asking) is None
    peer.server.handle(b"route0", m.encode(m.Hello(wire.VERSION, "job", 0, 1, "token", 2, "sync", 1)))
    told = [type(message) for route, message in peer.sent]
    assert told == ([m.Ready] if journal else [m.Done, m.Ready])
    peer.sent.clear()
    again = peer.ask(0, push(3, True, number=1, later=True))
    assert again == (None if journal else m.Done(3))
    answer = peer.ask(1, push(1))
    assert isinstance(answer, m.Values)
    assert isinstance(peer.ask(0, m.Pull(4, ["w"], 0, 1)), m.Values)
    assert peer.weight() == [-2, -2]
