"""The transport between real processes: ZeroMQ's sockets, the system's clock, a thread for the
heart."""

from __future__ import annotations

import atexit
import contextlib
import secrets
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
import zmq.utils.garbage  # its exit handler has to run after ours, so to be registered before

from mxopt.kvstore import ending, lending, loans, sockets, unix
from mxopt.kvstore.address import check_host
from mxopt.kvstore.heart import Heart
from mxopt.kvstore.inlet import Inlet
from mxopt.kvstore.keys import KeyPair, load_keys
from mxopt.kvstore.pipes import Pipes
from mxopt.kvstore.transport import SLICE_S
from mxopt.kvstore.wire import Frame, buffer_of
from mxopt.settings import Job


def _event(frame: bytes) -> int:
    """Which event a socket's monitor tells of. (pyzmq's own reader of them brings in asyncio.)"""
    return int.from_bytes(frame[:2], sys.byteorder)


class SocketLine:
    """A DEALER socket as a Line. Its monitor tells when its connection is cut and made: it is
    renewed when it is made after a cut.

    An exception within a message (Ctrl-C) leaves part of it in the socket, where the next message
    would be glued to it: such a socket is given up for a new one.

    With `lends` arrays travel by loans, see `lending`, where both processes can. Every connection
    begins with new ones: of the old nobody knows what has been lost. Messages go by `pipes` from
    one on that is alone and has no arrays of its own frames, till one is alone that has.
    """

    def __init__(self, open_socket: Callable[[], zmq.Socket[bytes]], lends: bool = False) -> None:
        self._open, self._lends = open_socket, lends
        self._loans: loans.Loans | None = None
        self._pipes: Pipes | None = None
        self._by_pipe = False  # whether messages go that way
        self._torn = False  # whether a message is half sent or half received
        self._cut = self._remade = False  # what the monitor has told of the connection
        self._renewed = False  # whether there is a new socket
        self._connect()

    def send(self, frames: list[Frame], alone: bool = False) -> None:
        self._whole()
        self._torn = True
        if alone:
            self._by_pipe = self._pipes is not None and len(frames) == 1
        if self._pipes is not None and not self._pipes.open:
            self._pipes, self._by_pipe = None, False  # the other side is gone
        loans = self._loans
        sent = self._post([*map(buffer_of, frames)]) if loans is None else loans.send(frames, self._post)
        self._torn = self._by_pipe and not sent

    def room(self, *sizes: int) -> list[Frame]:
        return loans.plain_room(sizes) if self._loans is None else self._loans.room(sizes)

    def receive(self, wait: bool) -> list[Frame] | None:
        self._whole()
        while True:
            self._torn = True
            came = self.inlet.receive(int(SLICE_S * 1000) if wait else 0)
            self._torn = False
            if came is None:
                return None
            _, frames = came
            if not frames[0].startswith(lending.MARK):
                return frames
            found = self._lent(frames[0])
            if found is not None:
                return found

    def renewed(self) -> bool:
        while self._monitor.poll(0):
            event = _event(self._monitor.recv_multipart()[0])
            self._remade |= self._cut and event == zmq.EVENT_CONNECTED
            self._cut = event == zmq.EVENT_DISCONNECTED
        renewed = self._renewed or self._remade
        if self._remade:
            self._lend()
        self._renewed = self._remade = False
        return renewed

    def close(self) -> None:
        self._close(200)

    def _whole(self) -> None:
        if self._torn:
            self._close(0)
            self._connect()
            self._torn, self._renewed = False, True

    def _connect(self) -> None:
        self.socket: zmq.Socket[bytes] = self._open()
        self.inlet = Inlet(self.socket)
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        self._cut = self._remade = False
        self._lend()

    def _post(self, frames: list[Frame]) -> bool:
        """Sends frames by the pipe, where there is one, or the socket. Whether they have left."""
        if self._pipes is not None and self._by_pipe:
            return self._pipes.send(frames)
        self.inlet.disturbed()
        return sockets.send(self.socket, frames)

    def _lend(self) -> None:
        """Offers memory to the other side, if there is some."""
        self._take_back()
        if self._lends:
            with contextlib.suppress(OSError):
                self._loans = loans.Loans()
                self._post([self._loans.offer()])

    def _take_back(self) -> None:
        """Gives up loans and pipes."""
        if self._loans is not None:
            if self._loans.pipes is not None:
                self.inlet.drop(self._loans.pipes)
            self._loans.close()
        self._loans = self._pipes = None
        self._by_pipe = False

    def _lent(self, message: bytes) -> list[Frame] | None:
        """The frames of a message that is of loans; None if it has none, or they can't be
        had."""
        if self._loans is None:
            return None
        if not message.startswith(lending.OFFER):
            return self._loans.received(message)
        with contextlib.suppress(OSError):
            self._loans.answered(message)
            if self._pipes is None and self._loans.pipes is not None:
                self._pipes = self._loans.pipes
                self.inlet.add(b"", self._pipes)
        return None

    def _close(self, linger: int) -> None:
        self._take_back()
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(linger)


class Network:
    """Real connections, made with the job's keys where it has some."""

    def __init__(self, keys: KeyPair | None) -> None:
        self.context = zmq.Context()
        self.keys = keys

    @classmethod
    def of(cls, job: Job) -> Network:
        """For a process of the job. Raises ArgumentError if its scheduler's host doesn't exist,
        or its keys."""
        check_host(job.host)
        return cls(load_keys(job.keys))

    clock = staticmethod(time.monotonic)

    def awake(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def token(self) -> str:
        return secrets.token_hex(8)

    def connect(self, endpoint: str, identity: bytes = b"") -> SocketLine:
        lends = bool(identity) and unix.is_unix(unix.choose(endpoint))
        return SocketLine(lambda: sockets.connect(self.context, endpoint, self.keys, identity), lends)

    def wait(self, lines: Sequence[Any]) -> Sequence[Any]:
        ready = [line for line in lines if line.inlet.ready]
        if ready:
            return ready
        poll, of = select.poll(), {file: line for line in lines for file in line.inlet.files}
        for file in of:
            poll.register(file, select.POLLIN)
        return [of[file] for file, _ in poll.poll(int(SLICE_S * 1000))]

    def beat(self, heart: Heart, endpoint: str) -> Callable[[], None]:
        address = f"inproc://heart-{self.token()}"
        stop = self.context.socket(zmq.PAIR)
        stop.bind(address)
        heart.wake = lambda: stop.send(b"now")
        thread = threading.Thread(target=self._beat, args=(heart, endpoint, address), name="mxopt-heart", daemon=True)
        thread.start()

        def ended() -> None:
            stop.send(b"")
            thread.join(5)
            stop.close(0)

        return ended

    def _beat(self, heart: Heart, endpoint: str, address: str) -> None:
        stop = self.context.socket(zmq.PAIR)
        stop.connect(address)
        socket = sockets.connect(self.context, endpoint, self.keys, heart.identity)
        poller = zmq.Poller()
        poller.register(stop, zmq.POLLIN)
        poller.register(socket, zmq.POLLIN)
        try:
            while True:
                now = self.clock()
                beat = heart.turn(now)
                if beat is not None:
                    sockets.send(socket, beat)
                ready = dict(poller.poll(max(1, int((heart.due - now) * 1000))))
                if stop in ready and not stop.recv():
                    return
                if socket in ready:
                    heart.hear(socket.recv_multipart(), self.clock())
        finally:
            socket.close(0)
            stop.close(0)

    def at_exit(self, action: Callable[[str], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                action(ending.error())
            except Exception as failure:
                ending.fail(f"{type(failure).__name__}: {failure}")

        ending.watch()
        atexit.register(run)
        return lambda: atexit.unregister(run)

    def close(self) -> None:
        self.context.term()
