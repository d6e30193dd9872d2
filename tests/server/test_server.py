"""A server's promises: pushes are applied exactly once, what is wrong is refused by name and
changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from mxopt_server.scheduler import Scheduler
from peer import ONES, Disk, Peer, config, note, push, with_sgd

from mxopt.document import dump_document, load_document
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message


def test_a_push_that_comes_twice_is_applied_once() -> None:
    peer = with_sgd(Peer(mode="async"))
    first, again = peer.ask(0, push(3)), peer.ask(0, push(3))
    assert first == again
    assert peer.weight() == [-1, -1]


def test_a_push_that_comes_too_early_is_asked_for_again_in_order() -> None:
    peer = with_sgd(Peer(mode="async"))
    assert peer.ask(0, push(4, number=2)) == m.Ready(0, peer.server.epoch, 3)
    assert peer.weight() == [0, 0]
    peer.ask(0, push(3, number=1))
    peer.ask(0, push(4, number=2))
    assert peer.weight() == [-2, -2]


def test_a_repeated_push_of_an_open_round_is_answered_when_it_is_complete() -> None:
    peer = with_sgd(Peer(2))
    assert peer.ask(0, push(3)) is None
    assert peer.ask(0, push(3)) is None
    peer.server.handle(b"route1", [bytes(f) for f in m.encode(push(1, value=2, number=1))])
    assert sorted(type(x).__name__ for _, x in peer.sent) == ["Values", "Values"]
    assert peer.weight() == [-3, -3]


def test_a_round_counts_workers_and_not_pushes() -> None:
    peer = with_sgd(Peer(2))
    for seq in (3, 4, 5):
        assert isinstance(peer.ask(0, push(seq, answer=False)), m.Done)
    assert peer.weight() == [0, 0]
    peer.ask(1, push(1, answer=False, value=10))
    assert peer.weight() == [-11, -11]


# Who is heard.


def test_a_worker_that_was_replaced_is_refused_over_restarts_too() -> None:
    peer = with_sgd(Peer(mode="async", journal=Disk()))
    peer.server.handshakes.hear([(0, 2, "another")])
    assert peer.ask(0, push(3)) == m.Ready(0, peer.server.epoch, 0)  # it is to say Hello
    assert "replaced" in peer.hello(0).text
    assert isinstance(peer.hello(0, 2, "another"), m.Ready)
    peer.restart()  # by now the new server has heard of the first only
    assert "replaced" in peer.hello(0).text
    assert peer.weight() == [0, 0]


def test_a_worker_is_let_in_once_the_scheduler_has_told_of_it_and_by_its_token_only() -> None:
    peer = Peer()
    assert isinstance(peer.hello(0, 2, "new"), m.Waiting)
    peer.server.handshakes.hear([(0, 2, "new")])
    assert "isn't the worker 0" in peer.hello(0, 2, "guessed").text
    assert isinstance(peer.hello(0, 2, "new"), m.Ready)


def test_a_server_whose_lease_has_run_out_keeps_its_answers_for_itself() -> None:
    peer = with_sgd(Peer(mode="async"))
    leased: list[Any] = []
    peer.server.answers._lease = lambda: bool(leased)
    assert peer.ask(0, push(3)) is None
    leased.append(True)
    peer.server.answers.flush()
    assert [type(x) for _, x in peer.sent] == [m.Values]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 1}, "version 1 came, server 0 speaks 2: install the same"),
        ({"job": "old"}, "belongs to job"),
        ({"workers": 3}, "has 1 worker, the worker says 3"),
        ({"rank": 7}, "has 1 worker, and no worker 7"),
        ({"mode": "async"}, "dist_"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes: dict[str, Any], text: str) -> None:
    assert text in Peer().hello(**{"rank": 0} | changes).text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (push(3, keys=("x",)), "'x' has not been initialised"),
        (m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 0, False, [b"123"]), "3 came"),
        (m.Push(3, True, ["w"], 7, 0, 0, 0, 0.0, 0, 0, False, [ONES]), "no piece 7"),
        (m.Push(3, True, ["w"], 0, 0, 0, 9, 0.0, 0, 0, False, [ONES]), "no codec 9"),
        (push(3, keys=("w", "w")), "twice"),
        (m.Init(3, ["w"], "float32", [[3]], [[3]], 0, 0, 0, [ONES]), "'w' is initialised"),
        (m.Init(3, ["v"], "float32", [[1 << 60]], [[1 << 60]], 0, 0, 0, [ONES]), "8 came"),
        (m.Init(3, ["v"], "float32", [[2]], [[2]], 1, 0, 0, [ONES]), "no part of [2] at 1 in [2]"),
        (m.Init(3, ["v"], "float32", [[0, 1 << 62]], [[0, 1 << 62]], 0, 0, 0, [b""]), "no part of [0, "),
        (m.Init(3, ["v"], "float32", [[2]], [[2]], 0, 0, wire.LARGEST, [ONES]), "begins with number"),
        (m.Rounds(3, ["w"], [1, 2]), "Rounds with 1 key and 2 pushes"),
        (m.Push(3, True, ["w"], 0, 1, 0, 1, -0.5, 0, 0, False, [b"xx"]), "a threshold above 0, got -0.5"),
        (m.PushRows(3, "w", 0, 0, 0, 1, 0, 0, [np.array([2]).tobytes(), ONES[:4]]), "ascend"),
        (m.PullRows(3, "w", 0, 0, [np.array([-1]).tobytes()]), "row ids"),
        (m.StoreStates(3, 1, "w", 5, 9, [b"x"]), "what comes after 5 of 9 came, 0 are here"),
        (m.SetOptimizer(3, 2, 7), "config number 7 hasn't come"),
        (m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 7, False, [ONES]), "config number 7 hasn't come"),
        (m.Config(3, 1, 1, False, 0, False, 0, wire.MAX_CONFIG + 1, [b"x"]), "at most"),
        (m.Config(3, 1, 1, False, 0, False, 0, 1, [b"x"]), "holds a map"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_name_and_the_server_goes_on(message: Message, text: str) -> None:
    peer = with_sgd(Peer(mode="async"))
    answer = peer.ask(0, message)
    assert isinstance(answer, m.Refused)
    assert text in answer.text
    assert "server 0" in answer.text
    assert isinstance(peer.ask(0, push(4)), m.Values)
    assert peer.weight() == [-1, -1]


def test_only_the_one_worker_of_a_job_counts_its_updates() -> None:
    peer = with_sgd(Peer(2, "async"))
    counts = m.Push(1, True, ["w"], 0, 1, 0, 0, 0.0, wire.LARGEST, 0, False, [ONES])
    assert "counts the updates, which 2 workers make" in peer.ask(1, counts).text
    assert peer.weight() == [0, 0]


# Rows and states that come in several messages.


def rows(seq: int, offset: int, total: int, numbers: list[int], key: str = "e") -> m.PushRows:
    data = np.ones((len(numbers), 1), np.float32).tobytes()
    return m.PushRows(seq, key, 0, 0, offset, total, 0, 0, [np.array(numbers, np.int64).tobytes(), data])


def with_rows(workers: int = 1, keys: str = "e") -> Peer:
    """A server with keys of four rows, each of one element; the next request of worker 0 is
    number 4."""
    peer = with_sgd(Peer(workers))
    for k, key in enumerate(keys):
        assert isinstance(
            peer.ask(0, m.Init(3 + k, [key], "float32", [[4, 1]], [[4, 1]], 0, 0, 0, [bytes(16)])), m.Done
        )
    return peer


@pytest.mark.parametrize("declared", [False, True])
def test_numbers_of_rows_are_what_was_checked_whatever_their_sender_does_to_the_memory_then(declared: bool) -> None:
    peer, ones = with_sgd(Peer(2)), wire.bytes_of(np.ones(4096, np.float32))
    first: Message = m.Init(3, ["e"], "float32", [[8192, 1]], [[8192, 1]], 0, 0, 0, [bytes(32768)])
    if declared:
        first = m.InitTable(3, "e", "float32", [8192, 1], 1, True, "zeros", 0.0, 0, 0, 0, 0, [b"", b""])
    peer.ask(0, first)
    lent = np.arange(4096)
    peer.server.handle(b"route0", m.encode(m.PushRows(4, "e", 1, 0, 0, 4096, 0, 0, [wire.bytes_of(lent), ones])))
    lent[:] = 1 << 40
    mine = np.arange(4096)[::-1].copy()
    peer.server.handle(b"route0", m.encode(m.PullRows(5, "e", 1, 0, [wire.bytes_of(mine)])))
    mine[:] = -1 << 40
    peer.server.handle(
        b"route1", m.encode(m.PushRows(1, "e", 1, 0, 0, 4096, 0, 0, [wire.bytes_of(np.arange(4096)), ones]))
    )
    (values,) = [x for route, x in peer.sent if route == b"route0" and isinstance(x, m.Values)]
    assert np.frombuffer(values.data[0], np.float32).tolist() == [-2.0] * 4096


def test_rows_that_came_in_part_never_become_another_keys() -> None:
    peer = with_rows(keys="ef")
    assert isinstance(peer.ask(0, rows(5, 0, 4, [0, 1], "e")), m.Done)
    assert isinstance(peer.ask(0, rows(6, 0, 1, [3], "f")), m.Done)
    assert "0 are here" in peer.ask(0, rows(7, 2, 4, [2, 3], "e")).text  # one thing comes at a time
    assert peer.weight("f") == [[0], [0], [0], [-1]]
    assert peer.weight("e") == [[0], [0], [0], [0]]


def test_a_push_of_rows_is_refused_whole_once_a_message_of_it_was() -> None:
    peer = with_rows()
    assert isinstance(peer.ask(0, rows(4, 0, 4, [0])), m.Done)
    assert "2 after 1 of 2" in peer.ask(0, rows(5, 1, 2, [1, 2])).text
    assert "0 are here" in peer.ask(0, rows(6, 1, 2, [1])).text
    assert "ascend" in peer.ask(0, rows(7, 0, 2, [3, 3])).text
    assert peer.weight("e") == [[0], [0], [0], [0]]
    assert isinstance(peer.ask(0, rows(8, 0, 1, [3])), m.Done)
    assert peer.weight("e") == [[0], [0], [0], [-1]]


def test_states_that_came_in_part_never_become_another_keys() -> None:
    peer = with_rows(keys="ef")
    document = dump_document({"count": 7, "state": None})
    first, second = document[:9], document[9:]
    assert isinstance(peer.ask(0, m.StoreStates(5, 1, "e", 0, len(document), [first])), m.Done)
    assert "0 are here" in peer.ask(0, m.StoreStates(6, 1, "f", 9, len(document), [second])).text
    assert isinstance(peer.ask(0, m.StoreStates(7, 1, "e", 0, len(document), [first])), m.Done)
    assert isinstance(peer.ask(0, m.StoreStates(8, 1, "e", 9, len(document), [second])), m.Done)
    answer = peer.ask(0, m.FetchStates(9, "e", 0))
    assert load_document(answer.data[0])["count"] == 7
    assert "from byte 0" in peer.ask(0, m.FetchStates(10, "f", 4)).text


# Refusals.


def test_a_refusal_that_got_lost_is_given_again() -> None:
    peer = with_sgd(Peer(mode="async"))
    bad = m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 0, False, [b"123"])
    refused = peer.ask(0, bad)
    assert isinstance(peer.ask(0, config(4, 1, {"name": "nonsense"})), m.Done)
    optimizer = peer.ask(0, m.SetOptimizer(5, 2, 1))
    assert "can't be made" in optimizer.text
    assert [peer.ask(0, bad), peer.ask(0, m.SetOptimizer(5, 2, 1))] == [refused, optimizer]


def test_refusals_are_kept_for_as_many_requests_as_can_be_without_an_answer() -> None:
    peer = with_sgd(Peer(mode="async"))
    for seq in range(3, 3 * wire.REQUESTS):
        peer.ask(0, push(seq, keys=("x",)))
    assert len(peer.server.sessions[0].refused) == wire.REQUESTS


def test_an_init_of_no_piece_leaves_nothing() -> None:
    peer = Peer(2)
    assert "piece 2 before piece 0" in peer.ask(1, m.Init(1, ["w"], "float32", [[4]], [[8]], 0, 2, 0, [b""])).text
    assert isinstance(peer.ask(0, m.Init(1, ["w"], "float32", [[4]], [[4]], 0, 0, 0, [bytes(16)])), m.Done)


# The scheduler.


def test_a_mistake_in_the_scheduler_is_told_to_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    scheduler = Scheduler(partial(note, sent), 1, 1, "job")
    monkeypatch.setattr(scheduler.roster, "missing", lambda: 1 / 0)
    scheduler.handle(b"a", m.encode(m.Join(wire.VERSION, "job", "worker", -1, 1, 1, "", "i", "me")))
    assert "ZeroDivisionError" in sent[-1].text


def test_a_peer_of_version_1_is_told_what_to_do() -> None:
    sent: list[Any] = []
    scheduler = Scheduler(partial(note, sent), 1, 1, "job")
    scheduler.handle(b"a", m.encode(m.Join(1, "job", "worker", -1, 1, 1, "", "i", "me")))
    assert "install the same mxopt for all" in sent[-1].text


def test_a_gap_is_told_once_however_many_requests_follow_it_and_again_when_it_is_not_mended() -> None:
    peer = with_sgd(Peer())
    answers = [type(peer.ask(0, push(seq))) for seq in range(10, 60)]
    assert answers == [m.Ready] + [type(None)] * 49
    assert [type(peer.ask(0, push(seq))) for seq in range(5, 60)] == [m.Ready] + [
        type(None)
    ] * 54  # sent again, in part
    assert [type(peer.ask(0, push(seq))) for seq in range(3, 60)] == [m.Values] * 57
