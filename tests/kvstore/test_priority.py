"""`priority`: what waits for room on a connection leaves by it, and never before an earlier message of its key."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from jobs import Job

from mxopt.kvstore import connection, sockets, wire
from mxopt.kvstore import messages as m
from mxopt.kvstore.backlog import Backlog

PIECE = wire.bytes_of(np.zeros(1 << 18, np.float32))


def put(backlog: Backlog, name: str, keys: str, priority: int) -> None:
    backlog.put(name, frozenset(keys), priority, 1)


def taken(backlog: Backlog) -> list[str]:
    return [backlog.take() for _ in range(len(backlog))]


def test_the_highest_priority_leaves_first_and_equals_as_they_came():
    backlog = Backlog()
    for name, priority in (("a", 0), ("b", 2), ("c", -1), ("d", 2), ("e", 0)):
        put(backlog, name, name, priority)
    assert backlog.nbytes == 5
    assert taken(backlog) == ["b", "d", "a", "e", "c"]
    assert backlog.nbytes == 0


def test_what_must_come_before_is_raised_too():
    backlog = Backlog()
    put(backlog, "first", "x", 0)
    put(backlog, "other", "z", 1)
    put(backlog, "batch", "xy", 0)
    put(backlog, "last", "y", 5)
    assert taken(backlog) == ["first", "batch", "last", "other"]


@pytest.mark.parametrize("seed", range(20))
def test_messages_of_a_key_keep_their_order(seed):
    random.seed(seed)
    backlog, keys = Backlog(), {}
    for k in range(30):
        keys[k] = "".join(random.sample("abcde", random.randint(1, 3)))
        backlog.put(k, frozenset(keys[k]), random.randint(-3, 3), 1)
    order = [backlog.take() for _ in range(30)]
    for letter in "abcde":
        mine = [k for k in order if letter in keys[k]]
        assert mine == sorted(mine)


class Silent:
    """A server that takes what comes, and answers when told to."""

    def __init__(self, context: zmq.Context) -> None:
        self.socket, port = sockets.bind(context, "127.0.0.1", 0, None)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.route = b""

    def next(self) -> object:
        self.route, *frames = self.socket.recv_multipart()
        return m.decode(frames)

    def answer(self, message: object) -> None:
        self.socket.send_multipart([self.route, *m.encode(message)])


class Ready(connection.Connections):
    """Connections without the handshake."""

    def _hello(self, channel: connection.Channel) -> None:
        channel.incarnation = "x"


def push(key: str, piece: int = 0) -> m.Push:
    return m.Push(0, False, [key], piece, 0, 0.0, 0, None, [PIECE])


def test_a_full_connection_sends_by_priority():
    context = zmq.Context()
    server = Silent(context)
    settings = SimpleNamespace(timeout=20.0, join_timeout=20.0, staleness=0)
    member = SimpleNamespace(
        settings=settings, welcome=SimpleNamespace(endpoints=[server.endpoint], workers=1), pulse=None, keys=None,
        job="j", rank=0, incarnation="i", check=lambda: None,
    )  # fmt: skip
    connections = Ready(context, member, "async")
    way = connection.WINDOW // len(PIECE) + 1  # pieces that are sent at once
    for piece in range(way + 2):
        connections.send(0, push("large", piece), None, None, len(PIECE), 0)
    connections.send(0, push("small"), None, None, len(PIECE), 1)
    call = connection.Call()
    connections.send(0, m.Pull(0, ["large"], way), call, None, 0, -1)
    connections.send(0, m.Pull(0, ["small"], 0), call, None, 0, 2)
    came = [server.next() for _ in range(way)]
    assert [(x.seq, x.keys, x.piece) for x in came] == [(k + 1, ["large"], k) for k in range(way)]
    for message in came:
        server.answer(m.Done(message.seq))
    connections._until(lambda: not connections.channels[0].backlog, 20, "the backlog to be sent")
    rest = [server.next() for _ in range(5)]
    assert [x.seq for x in rest] == list(range(way + 1, way + 6))
    assert [(type(x).__name__, *x.keys, x.piece) for x in rest] == [
        ("Push", "small", 0), ("Pull", "small", 0), ("Push", "large", way), ("Push", "large", way + 1),
        ("Pull", "large", way),
    ]  # fmt: skip
    for message in rest:
        server.answer(m.Done(message.seq) if isinstance(message, m.Push) else m.Values(message.seq, [b""]))
    connections.wait(call, "the pulls")
    connections.close()
    server.socket.close(0)
    context.term()


def test_overtaking_changes_no_bit():
    with Job(1, 1) as job:
        assert job.run("overtaking.train") == [[]]
