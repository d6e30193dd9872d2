"""A worker's connection to a server that behaves oddly."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import zmq

from mxopt.errors import DeadlineError
from mxopt.kvstore import connection, sockets, wire
from mxopt.kvstore import messages as m


class Server:
    """A ROUTER that a test answers by hand."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket, port = sockets.bind(self.context, "127.0.0.1", 0, None)
        self.socket.setsockopt(zmq.RCVTIMEO, 20_000)
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def next(self) -> object:
        self.route, *frames = self.socket.recv_multipart()
        return m.decode(frames)

    def answer(self, message: object) -> None:
        self.socket.send_multipart([self.route, *m.encode(message)])


class Greeted(connection.Connections):
    """Connections without the handshake."""

    def _hello(self, channel: connection.Channel) -> None:
        channel.incarnation, channel.asked, channel.greeted = "x", time.monotonic(), channel.next > 1
        if channel.next > 1:
            super()._hello(channel)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.socket.close(0)
    made.context.term()


@pytest.fixture
def connections(server):
    settings = SimpleNamespace(timeout=1.0, join_timeout=20.0, staleness=0)
    member = SimpleNamespace(
        settings=settings, welcome=SimpleNamespace(endpoints=[server.endpoint], workers=1), pulse=None, keys=None,
        job="j", rank=0, incarnation="i", check=lambda: None,
    )  # fmt: skip
    made = Greeted(server.context, member, "async")
    yield made
    made.close()


def push() -> m.Push:
    return m.Push(0, False, ["w"], 0, 0, 0.0, 0, None, [wire.bytes_of(np.zeros(2, np.float32))])


def ready(expects: int) -> m.Ready:
    return m.Ready(*(0, "x", expects, 0)[: len(m.Ready.__struct_fields__)])


def test_a_call_ends_at_its_deadline_though_something_keeps_arriving(server, connections):
    call = connection.Call()
    connections.send(0, push(), call)
    server.next()
    began = time.monotonic()

    def chatter() -> bool:
        server.answer(m.Done(*(999, 0)[: len(m.Done.__struct_fields__)]))
        return connection.Connections._receive(connections, connection.SLICE_MS)

    connections._receive = lambda timeout: chatter()
    with pytest.raises(DeadlineError, match="waited 1 s for an answer"):
        connections.wait(call, "an answer")
    assert time.monotonic() - began < 5


def test_a_gap_is_mended_once_though_every_later_request_was_answered_with_ready(server, connections):
    for _ in range(50):
        connections.send(0, push())
    for _ in range(50):
        server.next()
    for _ in range(50):
        server.answer(ready(11))
    server.answer(m.Done(*(1, 0)[: len(m.Done.__struct_fields__)]))
    while 1 in connections.channels[0].pending:
        connections._receive(connection.SLICE_MS)
    again = [server.next().seq for _ in range(50)]
    assert again == [*range(1, 51)]
    assert not server.socket.poll(0)


def test_a_worker_that_only_pushes_follows_a_server_that_was_started_elsewhere(server, connections):
    connections.send(0, push())
    server.next()
    other = Server()
    connections.member.pulse = SimpleNamespace(endpoints=[other.endpoint])
    connections.check()
    assert isinstance(other.next(), m.Hello)
    connections.close()
    other.socket.close(0)
    other.context.term()
