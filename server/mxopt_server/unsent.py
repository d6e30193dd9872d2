"""What has been handed over to ZeroMQ and hasn't left: it has no bound of its own in bytes."""

from __future__ import annotations

from collections import deque

import zmq

from mxopt.kvstore import wire

MOST = 2 * wire.WINDOW  # bytes to one connection; a worker that reads has less than half of it on the way
IN_ALL = 1 << 30  # bytes to all


class Unsent:
    """The large frames that are on their way out, by connection. A process may say that it has read
    what it hasn't, and connect again and again: what it is sent then doesn't pile up."""

    def __init__(self) -> None:
        self._frames: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._bytes: dict[bytes, int] = {}  # by connection, where there are any
        self._in_all = 0

    def has_room(self, route: bytes, nbytes: int) -> bool:
        """Whether a frame of this size may be sent to a connection."""
        self._left(route)
        if self._in_all + nbytes > IN_ALL:
            for each in list(self._frames):
                self._left(each)
        return self._bytes.get(route, 0) + nbytes <= MOST and self._in_all + nbytes <= IN_ALL

    def add(self, route: bytes, nbytes: int, tracker: zmq.MessageTracker) -> None:
        """A frame has been handed over, by whose tracker ZeroMQ tells when it needs it no more."""
        self._frames.setdefault(route, deque()).append((tracker, nbytes))
        self._bytes[route] = self._bytes.get(route, 0) + nbytes
        self._in_all += nbytes

    def _left(self, route: bytes) -> None:
        frames = self._frames.get(route, ())
        while frames and frames[0][0].done:
            _, nbytes = frames.popleft()
            self._bytes[route] -= nbytes
            self._in_all -= nbytes
        if not frames and route in self._frames:
            del self._frames[route], self._bytes[route]
