"""Pushes whose answer may come with another."""

from __future__ import annotations

from mxopt_server.pushes import DEPTH
from mxopt_server.worker_session import LATER
from peer import Peer, push, with_sgd

from mxopt.kvstore import messages as m, wire


def test_the_done_of_a_small_push_comes_with_the_next_answer() -> None:
    peer = with_sgd(Peer())
    assert peer.ask(0, push(3, False, later=True)) is None
    assert peer.ask(0, push(4, False, later=True)) is None
    assert peer.ask(0, m.Pull(5, ["w"], 0, 2)).also == [3, 4]
    assert peer.ask(0, push(6, False, later=True)) is None
    assert peer.ask(0, push(7, False)) == m.Done(7, 0, [6])
    assert peer.ask(0, push(8)).also == []


def test_many_small_pushes_are_answered_by_themselves_and_so_is_a_large_one() -> None:
    peer = with_sgd(Peer())
    sent = [peer.ask(0, push(3 + k, False, later=True)) for k in range(2 * LATER)]
    assert [answer for answer in sent if answer is not None] == [
        m.Done(first, 0, list(range(first + 1, first + LATER))) for first in (3, 3 + LATER)
    ]
    seq = 3 + 2 * LATER
    peer.ask(0, m.Init(seq, ["large"], "float32", [[8192]], [[8192]], 0, 0, 0, [bytes(32768)]))
    assert peer.ask(0, push(seq + 1, False, later=True)) is None
    large = m.Push(seq + 2, False, ["large"], 0, 1, 0, 0, 0.0, 0, 0, True, [bytes(32768)])
    assert peer.ask(0, large) == m.Done(seq + 1, 0, [seq + 2])


def test_who_says_hello_hears_of_all_that_is_met_before_it_is_ready() -> None:
    peer = with_sgd(Peer())
    peer.ask(0, push(3, False, later=True))
    hello = m.Hello(wire.VERSION, "job", 0, 1, "token", 1, "sync", 1)
    peer.server.handle(b"another route", m.encode(hello))
    assert peer.sent == [(b"another route", m.Done(3)), (b"another route", m.Ready(0, peer.server.epoch, 4))]


def test_a_push_that_says_later_and_is_ahead_of_the_others_is_answered_with_its_round() -> None:
    peer = with_sgd(Peer(2))
    for seq in range(3, 3 + DEPTH):
        assert peer.ask(0, push(seq, False, later=True)) is None
    assert peer.ask(0, push(3 + DEPTH, False, later=True)) is None
    for number in range(1, 2 + DEPTH):
        peer.server.handle(b"route1", m.encode(push(number, False, number=number)))
    answers = [message for route, message in peer.sent if route == b"route0"]
    assert answers == [m.Done(3 + DEPTH, 0, list(range(3, 3 + DEPTH)))]
