"""What strangers can do to a listening socket before they have said who they are: nothing that
stays."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from mxopt_server import routers

from mxopt.kvstore import sockets, wire
from mxopt.kvstore.keys import KeyPair


def greeting(mechanism: bytes) -> bytes:
    """What opens a connection of ZMTP 3."""
    return b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + b"\0" * 32


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as made:
        yield made


def listening(context: zmq.Context[Any], keys: KeyPair | None = None) -> tuple[zmq.Socket[Any], socket.socket]:
    """A bound socket, and a connection to it that has said nothing yet."""
    router = routers.router(context, keys, 35)
    router.linger = 0
    port = routers.bind_tcp(router, "127.0.0.1", 0)
    return router, socket.create_connection(("127.0.0.1", port), 30)


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the other end closes the connection."""
    got = b""
    try:
        while part := connection.recv(4096):
            got += part
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("said", [b"", greeting(b"NULL")])
def test_a_connection_that_stays_silent_is_closed(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(routers, "HANDSHAKE_MS", 300)
    router, connection = listening(context)
    with router, connection:
        connection.sendall(said)
        until_closed(connection)


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"CURVE"])
def test_without_the_keys_nothing_is_taken(context: zmq.Context[Any], mechanism: bytes) -> None:
    router, connection = listening(context, zmq.curve_keypair())
    guard = routers.authenticator(context, zmq.curve_keypair())
    try:
        with router, connection:
            connection.sendall(greeting(mechanism))
            ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
            connection.sendall(bytes([4, len(ready)]) + ready)
            frame = b"\x03" + (65536).to_bytes(8, "big") + bytes(65536)  # of a message that has no end
            with pytest.raises(OSError):  # noqa: PT011 closed, in one of several ways
                connection.sendall(frame * 1024)
            router.rcvtimeo = 100
            with pytest.raises(zmq.Again):
                sockets.receive(router)
    finally:
        guard.stop()  # type: ignore[union-attr]


def test_a_frame_that_is_too_long_closes_the_connection(context: zmq.Context[Any]) -> None:
    router = routers.router(context, None, 35)
    router.linger = 0
    port = routers.bind_tcp(router, "127.0.0.1", 0)
    with router, context.socket(zmq.DEALER) as dealer, dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as closed:
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(bytes(wire.MAX_FRAME + 1))
        assert closed.poll(30_000)
        router.rcvtimeo = 100
        with pytest.raises(zmq.Again):
            sockets.receive(router)
        dealer.disable_monitor()


def test_of_a_message_with_many_frames_few_are_kept_and_the_next_is_whole(context: zmq.Context[Any]) -> None:
    router = routers.router(context, None, 35)
    router.linger = 0
    port = routers.bind_tcp(router, "127.0.0.1", 0)
    with router, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send_multipart([bytes(70_000)] * 1000)
        dealer.send_multipart([b"a", b"b"])
        router.rcvtimeo = 30_000
        assert len(sockets.receive(router)) == sockets.FRAMES
        assert [bytes(f) for f in sockets.receive(router)[1:]] == [b"a", b"b"]


def test_a_process_may_have_all_the_connections_that_the_system_grants() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(128, before[1]), before[1]))
        routers.allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
