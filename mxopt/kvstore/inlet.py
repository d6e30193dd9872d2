"""What comes to a process by a ZeroMQ socket, and by pipes beside it."""

from __future__ import annotations

import math
import select
import time
from collections import deque

import zmq

from mxopt.errors import ProtocolError
from mxopt.kvstore import sockets
from mxopt.kvstore.pipes import Pipes
from mxopt.kvstore.wire import Frame


class Inlet:
    """What comes by a ZeroMQ socket, and by pipes beside it, each of which has a name."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._file = int(socket.getsockopt(zmq.FD))  # can be read when the socket may have a message, once
        self._quiet = False  # whether the socket has none, and that file tells of the next
        self._pipes: dict[int, tuple[bytes, Pipes]] = {}
        self._turn = False  # whether it is the pipes': the socket has just had its own
        self._here: deque[tuple[bytes, list[Frame]]] = deque()
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def add(self, name: bytes, pipes: Pipes) -> None:
        """Takes messages by pipes, too, until they are dropped."""
        self._pipes[pipes.reads] = name, pipes
        self._poll.register(pipes.reads, select.POLLIN)

    def drop(self, pipes: Pipes) -> None:
        """Closes pipes, and takes no more by them."""
        if self._pipes.get(pipes.reads, (b"", None))[1] is pipes:  # closed ones may share their file's number
            del self._pipes[pipes.reads]
            self._poll.unregister(pipes.reads)
        pipes.close()

    def disturbed(self) -> None:
        """The socket has been used: it may have heard of a message meanwhile."""
        self._quiet = False

    @property
    def files(self) -> list[int]:
        """What can be read when there may be a message."""
        return [self._file, *self._pipes]

    @property
    def ready(self) -> bool:
        """Whether there may be a message already."""
        return bool(self._here) or not self._quiet

    def receive(self, milliseconds: int) -> tuple[bytes | None, list[Frame]] | None:
        """The next message, and the name of the pipes by which it came, None where it was the
        socket; None if there is none in that time. What is no message ends its pipes. Socket and
        pipes take turns: neither waits until the other has no more."""
        until = time.monotonic() + milliseconds / 1000
        while True:
            if self._here:
                return self._here.popleft()
            if self._turn:
                self._turn = False
                self._look(0)
                continue
            frames = self._by_socket()
            if frames is not None:
                self._turn = bool(self._pipes)
                return None, frames
            if not self._look(max(0, math.ceil(1000 * (until - time.monotonic())))):
                return None

    def _look(self, milliseconds: int) -> bool:
        """Takes what comes by pipes within this time; returns whether anything has told of a
        message."""
        came = self._poll.poll(milliseconds)
        for file, _ in came:  # ZeroMQ's may tell of nothing: it has words of its own with the other side
            if file == self._file:
                self._quiet = False
            else:
                self._take(*self._pipes[file])
        return bool(came)

    def _take(self, name: bytes, pipes: Pipes) -> None:
        if not pipes.open:  # the file of that number is another by now
            self.drop(pipes)
            return
        try:
            self._here.extend((name, message) for message in pipes.take())
        except (OSError, ProtocolError):
            self.drop(pipes)

    def _by_socket(self) -> list[Frame] | None:
        if self._quiet:
            return None
        try:
            return sockets.receive(self._socket, sockets.NOW)
        except zmq.Again:
            self._quiet = True
            return None
