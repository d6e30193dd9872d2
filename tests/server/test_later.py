"""Pushes whose answer may come with another."""

from __future__ import annotations

from mxopt_server.pushes import DEPTH
from mxopt_server.worker_session import LATER, LATER_BYTES
from peer import Peer, push, with_sgd

from mxopt.kvstore import messages as m, wire

SIZE = LATER_BYTES // 12  # elements of a piece


def test_the_done_of_a_small_push_comes_with_the_next_answer() -> None:
    peer = with_sgd(Peer())
    assert peer.ask(0, push(3, False, later=True)) is None
    assert peer.ask(0, push(4, False, later=True)) is None
    assert peer.ask(0, m.Pull(5, ["w"], 0, 2)).also == [3, 4]
    assert peer.ask(0, push(6, False, later=True)) is None
    assert peer.ask(0, push(7, False)) == m.Done(7, 0, [6])
    assert peer.ask(0, push(8)).also == []


def test_many_pushes_are_answered_by_themselves_and_so_are_large_ones() -> None:
    peer = with_sgd(Peer())
    sent = [peer.ask(0, push(3 + k, False, later=True)) for k in range(2 * LATER)]
    assert [answer for answer in sent if answer is not None] == [
        m.Done(first, 0, list(range(first + 1, first + LATER))) for first in (3, 3 + LATER)
    ]
    seq = 3 + 2 * LATER
    peer.ask(0, m.Init(seq, ["large"], "float32", [[SIZE]], [[SIZE]], 0, 0, 0, [bytes(4 * SIZE)]))
    assert peer.ask(0, push(seq + 1, False, later=True)) is None
    large = [
        m.Push(seq + 2 + k, False, ["large"], 0, 1 + k, 0, 0, 0.0, 0, 0, True, [bytes(4 * SIZE)]) for k in range(3)
    ]
    assert [peer.ask(0, message) for message in large] == [None, None, m.Done(seq + 1, 0, [seq + 2, seq + 3, seq + 4])]


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
    assert peer.ask(0, push(3 + DEPTH, False, later=True)) == m.Done(3, 0, list(range(4, 3 + DEPTH)))
    for number in range(1, 2 + DEPTH):
        peer.server.handle(b"route1", m.encode(push(number, False, number=number)))
    answers = [message for route, message in peer.sent if route == b"route0"]
    assert answers == [m.Done(3 + DEPTH)]
