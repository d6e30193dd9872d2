"""A worker's session without sockets: what it sends again, whom it asks, what it gives up."""

from __future__ import annotations

import numpy as np
import pytest
from session_peer import Peer

from mxopt.errors import JobFailedError, KVStoreError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.exchange import KeyInfo
from mxopt.kvstore.first import tell_rounds
from mxopt.kvstore.held import Held


def push(answer: bool = False, round: int = 0) -> m.Push:
    return m.Push(0, answer, ["w"], 0, round, 0, 0, 0.0, 0, 0, False, [wire.bytes_of(np.zeros(2, np.float32))])


def info(key: str, round: int) -> KeyInfo:
    made = Held(1, 1000).info(key, np.zeros(2, np.float32), False)
    made.round = round
    return made


def test_what_lies_behind_a_gap_is_sent_again_and_what_is_known_asked_for() -> None:
    worker = Peer()
    for _ in range(50):
        worker.send(push())
    worker.posted()
    worker.ready(11)
    again = worker.posted()
    assert [x.seq for x in again] == list(range(1, 51))
    assert [type(x) for x in again] == [m.Push] * 50
    assert [len(x.data[0]) for x in again] == [0] * 10 + [8] * 40  # the first ten are known


def test_a_push_that_asks_for_values_is_asked_again_by_a_pull() -> None:
    worker = Peer()
    worker.send(push(True, 3))
    worker.posted()
    worker.ready(2)
    assert worker.posted() == [m.Pull(1, ["w"], 0, 3)]


def test_a_server_that_came_back_is_told_which_pushes_it_had_taken() -> None:
    worker = Peer()
    infos = [info(key, round) for key, round in (("w", 5), ("v", 3), ("u", 0))]
    worker.session.came_back = lambda server: tell_rounds(worker.session, server, infos)
    for message in (push(round=4), push(round=5), m.Pull(0, ["v"], 0, 3)):
        worker.send(message)
    worker.posted()
    worker.ready(1, epoch=2)
    pushed = worker.posted()
    assert [type(x) for x in pushed] == [m.Push, m.Push, m.Pull, m.Rounds]
    assert (pushed[-1].keys, pushed[-1].pushed) == (["w", "v"], [3, 3])
    worker.ready(1, epoch=3)
    assert [type(x) for x in worker.posted()][-2:] == [m.Rounds, m.Rounds]


def test_a_silent_server_is_asked_every_three_seconds_and_only_while_something_is_to_come() -> None:
    worker = Peer()
    worker.time += 60
    worker.session.look(["here"])
    assert worker.posted() == []
    call = worker.send(push())
    worker.posted()
    for _ in range(100):
        worker.time += 0.1
        worker.session.look(["here"])
    hellos = worker.posted()
    assert [type(x) for x in hellos] == [m.Hello] * 3
    worker.answer(m.Done(1))
    assert call.missing == 0
    assert worker.session.idle


def test_what_is_sent_beside_another_request_is_not_alone() -> None:
    worker = Peer()
    worker.alone.clear()
    worker.session.greet(worker.channel)
    worker.send(push())
    worker.session.greet(worker.channel)  # which must not overtake the push by another way
    worker.send(push())
    assert worker.alone == [True, True, False, False]


def test_a_server_that_was_started_elsewhere_is_greeted_there() -> None:
    worker = Peer()
    worker.session.look(["there"])
    assert worker.connected == ["here", "there"]
    assert [type(x) for x in worker.posted()] == [m.Hello]
    assert str(worker.channel) == "server 0 (there)"


def test_an_answer_that_comes_twice_counts_once() -> None:
    worker = Peer()
    call = worker.send(push(), nbytes=8)
    for _ in range(2):
        worker.answer(m.Done(1))
    assert (call.missing, worker.channel.outstanding) == (0, 0)


def test_a_refusal_is_its_callers_or_nobodys_or_the_sessions() -> None:
    worker = Peer()
    call = worker.send(push())
    worker.session.send(0, push())
    worker.answer(m.Refused(1, "KVStoreError", "of the call", None))
    worker.answer(m.Refused(2, "KVStoreError", "of a push", None))
    assert str(call.error) == "of the call"
    assert isinstance(worker.session.deferred, KVStoreError)
    assert worker.session.failure is None
    worker.answer(m.Refused(0, "KVStoreError", "replaced", None))
    assert str(worker.session.failure) == "replaced"


def test_what_a_call_has_given_up_is_sent_again_as_it_was() -> None:
    worker = Peer()
    array = np.ones(2, np.float32)
    call = worker.send(m.Push(0, True, ["w"], 0, 0, 0, 0, 0.0, 0, 0, False, [wire.bytes_of(array)]))
    first = worker.posted()
    worker.session.forget(call)
    array[:] = 7
    worker.ready(1)
    assert worker.posted() == first


def test_a_server_that_knows_requests_which_were_never_sent_is_none_of_this_worker() -> None:
    worker = Peer()
    worker.send(push())
    with pytest.raises(JobFailedError, match="never sent"):
        worker.ready(3)


def test_the_error_of_a_deadline_names_whose_push_is_missing() -> None:
    worker = Peer()
    worker.send(m.Pull(0, ["w"], 0, 0))
    worker.answer(m.Ready(0, 1, 2, [(1, "w", 3)]))
    assert "Pull of key 'w', where key 'w' lacks push number 3 of worker 1" in worker.session.silent()


# Servers that are started again.


def test_a_server_that_was_started_again_is_sent_what_has_no_answer_numbered_from_1() -> None:
    worker = Peer()
    for _ in range(4):
        worker.send(push())
    worker.answer(m.Done(1))
    worker.answer(m.Done(2))
    worker.posted()
    worker.ready(0, 2)
    worker.ready(0, 2)
    assert [type(x) for x in worker.posted()] == [m.Hello]  # asked once
    worker.ready(1, 2)
    assert [(type(x), x.seq) for x in worker.posted()] == [(m.Push, 1), (m.Push, 2)]
    worker.answer(m.Done(1))
    worker.answer(m.Done(2))
    assert worker.session.idle


def test_what_came_in_part_is_sent_again_whole_with_the_config_it_counts_on() -> None:
    worker, ids, data = Peer(), np.arange(2), np.ones(2, np.float32)
    call = worker.send(m.Config(0, 1, 1, False, 0, False, 0, 1, [b"a"]))
    worker.send(m.Config(0, 2, 1, True, 0, False, 0, 2, [b"b"]))
    worker.send(m.Config(0, 2, 1, True, 0, False, 1, 2, [b"c"]))
    frames = [wire.bytes_of(ids), wire.bytes_of(data)]
    worker.send(m.PushRows(0, "w", 1, 0, 0, 4, 0, 0, list(frames)))
    worker.send(m.PushRows(0, "w", 1, 0, 2, 4, 0, 2, list(frames)))
    for seq in (1, 2, 3, 4):
        worker.answer(m.Done(seq))
    worker.posted()
    worker.ready(1, 2)
    again = worker.posted()
    assert [(type(x), x.seq) for x in again] == [(m.Config, 1), (m.Config, 2), (m.PushRows, 3), (m.PushRows, 4)]
    assert bytes(again[2].data[1]) == np.ones(2, np.float32).tobytes()
    assert call.missing == 0
    for seq in (1, 2, 3, 4):
        worker.answer(m.Done(seq))
    worker.ready(1, 3)
    assert [type(x) for x in worker.posted()] == [m.Config, m.Config]
