"""`priority`: what waits for room on a connection leaves by it, and never before an earlier message
of its key."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from jobs import Job
from session_peer import Peer

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.backlog import Backlog

ONE_PIECE = wire.bytes_of(np.zeros(1 << 18, np.float32))


def put(backlog: Backlog[Any], name: str, keys: str, priority: int) -> None:
    backlog.put(name, frozenset(keys), priority, 1)


def taken(backlog: Backlog[Any]) -> list[str]:
    return [backlog.take() for _ in range(len(backlog))]


def test_the_highest_priority_leaves_first_and_equals_as_they_came() -> None:
    backlog: Backlog[str] = Backlog()
    for name, priority in (("a", 0), ("b", 2), ("c", -1), ("d", 2), ("e", 0)):
        put(backlog, name, name, priority)
    assert backlog.nbytes == 5
    assert taken(backlog) == ["b", "d", "a", "e", "c"]
    assert backlog.nbytes == 0


def test_what_must_come_before_is_raised_too() -> None:
    backlog: Backlog[str] = Backlog()
    put(backlog, "first", "x", 0)
    put(backlog, "other", "z", 1)
    put(backlog, "batch", "xy", 0)
    put(backlog, "last", "y", 5)
    assert taken(backlog) == ["first", "batch", "last", "other"]


@pytest.mark.parametrize("seed", range(20))
def test_messages_of_a_key_keep_their_order(seed: int) -> None:
    random.seed(seed)
    backlog: Backlog[int] = Backlog()
    keys: dict[int, str] = {}
    for k in range(30):
        keys[k] = "".join(random.sample("abcde", random.randint(1, 3)))
        backlog.put(k, frozenset(keys[k]), random.randint(-3, 3), 1)
    order = [backlog.take() for _ in range(30)]
    for letter in "abcde":
        mine = [k for k in order if letter in keys[k]]
        assert mine == sorted(mine)


def push(key: str, piece: int = 0) -> m.Push:
    return m.Push(0, False, [key], piece, 1, 0, 0, 0.0, 0, 0, False, [ONE_PIECE])


def test_a_full_connection_sends_by_priority() -> None:
    worker = Peer()
    way = wire.WINDOW // len(ONE_PIECE) + 1  # pieces that are sent at once
    for piece in range(way + 2):
        worker.send(push("large", piece), nbytes=len(ONE_PIECE), priority=0)
    worker.send(push("small"), nbytes=len(ONE_PIECE), priority=1)
    worker.send(m.Pull(0, ["large"], way, 1), priority=-1)
    worker.send(m.Pull(0, ["small"], 0, 1), priority=2)
    came = worker.posted()
    assert [(x.seq, x.keys, x.piece) for x in came] == [(k + 1, ["large"], k) for k in range(way)]
    for message in came:
        worker.answer(m.Done(message.seq))
    rest = worker.posted()
    assert [x.seq for x in rest] == list(range(way + 1, way + 6))
    assert [(type(x).__name__, *x.keys, x.piece) for x in rest] == [
        ("Push", "small", 0), ("Pull", "small", 0), ("Push", "large", way), ("Push", "large", way + 1),
        ("Pull", "large", way),
    ]  # fmt: skip


def test_a_request_without_a_priority_is_overtaken_by_none() -> None:
    worker = Peer()
    for piece in range(wire.WINDOW // len(ONE_PIECE) + 3):
        worker.send(push("large", piece), nbytes=len(ONE_PIECE), priority=-1)
    worker.send(push("config"), nbytes=len(ONE_PIECE))
    worker.send(push("small"), nbytes=len(ONE_PIECE), priority=5)
    came = []
    while not worker.session.idle:
        for message in (sent := worker.posted()):
            worker.answer(m.Done(message.seq))
        came += sent
    assert [x.keys for x in came][-2:] == [["config"], ["small"]]


def test_overtaking_changes_no_bit() -> None:
    with Job(1, 1) as job:
        job.run("overtaking.train")
