"""What has been handed over to ZeroMQ and hasn't left: it has no bound of its own in bytes."""

from __future__ import annotations

import contextlib
import time
from collections import deque

import zmq

from mxopt.kvstore import wire

MOST = 4 * wire.WINDOW  # bytes to one connection; a worker that reads has less than half of it on the way
IN_ALL = 1 << 30  # bytes to all
PATIENCE = 0.5  # seconds in which this process's other threads have to tell of frames that have left


class Unsent:
    """The large frames that are on their way out, by connection. A process may say that it has read
    what it hasn't, and connect again and again: what it is sent then doesn't pile up."""

    def __init__(self) -> None:
        self._frames: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._bytes: dict[bytes, int] = {}  # by connection, where there are any
        self._in_all = 0
        self._stuck: set[bytes] = set()  # connections that have been waited for in vain

    def has_room(self, route: bytes, nbytes: int) -> bool:
        """Whether a frame of this size may be sent to a connection. That frames have left is told
        by pyzmq's own thread, which a busy loop holds up: it is waited for, unless it was in vain
        since the last that has left."""
        self._left(route)
        deadline = time.monotonic() + PATIENCE
        while self._bytes.get(route, 0) + nbytes > MOST and route not in self._stuck:
            with contextlib.suppress(zmq.NotDone):
                self._frames[route][0][0].wait(max(0.0, deadline - time.monotonic()))
            if not self._left(route) and time.monotonic() >= deadline:
                self._stuck.add(route)
        if self._in_all + nbytes > IN_ALL:
            for each in list(self._frames):
                self._left(each)
        return self._bytes.get(route, 0) + nbytes <= MOST and self._in_all + nbytes <= IN_ALL

    def add(self, route: bytes, nbytes: int, tracker: zmq.MessageTracker) -> None:
        """A frame has been handed over, by whose tracker ZeroMQ tells when it needs it no more."""
        self._frames.setdefault(route, deque()).append((tracker, nbytes))
        self._bytes[route] = self._bytes.get(route, 0) + nbytes
        self._in_all += nbytes

    def _left(self, route: bytes) -> bool:
        """Forgets the frames that have left; whether there were any."""
        frames = self._frames.get(route, ())
        left = False
        while frames and frames[0][0].done:
            _, nbytes = frames.popleft()
            left = True
            self._bytes[route] -= nbytes
            self._in_all -= nbytes
        if not frames and route in self._frames:
            del self._frames[route], self._bytes[route]
        if left:
            self._stuck.discard(route)
        return left
