"""A worker's connections to the servers: numbered requests, answers in any order, repeats, deadlines.

A request is kept until it is answered. While too much is on the way, requests wait in a backlog, the highest priority
first. After a silence, Hello asks the server which number it expects: what has not arrived is sent again, and what may
have been answered is asked for again; the server applies a number once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import zmq

from mxopt.errors import DeadlineError, JobFailedError, ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore import sockets, wire
from mxopt.kvstore.backlog import Backlog
from mxopt.kvstore.membership import SLICE_MS, Membership, error_of

log = logging.getLogger("mxopt.kvstore")

WINDOW = 8 << 20  # bytes on the way to or from one server at a time
BACKLOG = 24 << 20  # bytes that wait to be sent to it; they leave, by priority, while a call of the store waits
RETRY = 3.0  # seconds of silence until a server is asked what has arrived

Sink = Callable[[Any], None]


class Call:
    """Requests that are waited for together."""

    __slots__ = ("error", "missing")

    def __init__(self) -> None:
        self.missing = 0
        self.error: Exception | None = None


class Pending:
    """A request without an answer. It has `frames` once it was sent."""

    __slots__ = ("call", "frames", "message", "nbytes", "sink")

    def __init__(self, message: Any, nbytes: int, call: Call | None, sink: Sink | None) -> None:
        self.message, self.nbytes, self.call, self.sink = message, nbytes, call, sink
        self.frames: list[Any] = []


class Channel:
    """The connection to one server."""

    def __init__(self, server: int, endpoint: str, socket: Any) -> None:
        self.server, self.endpoint, self.socket = server, endpoint, socket
        self.next = 1
        self.pending: dict[int, Pending] = {}
        self.backlog = Backlog()
        self.outstanding = 0
        self.incarnation = ""
        self.heard = time.monotonic()
        self.asked = 0.0
        self.greeted = False  # whether a Hello is without its Ready
        self.resent = 0  # the number from which all was sent again last
        self.config_sent = 0  # the version of the optimizer's config that this server knows

    def __str__(self) -> str:
        return f"server {self.server} ({self.endpoint})"

    @property
    def full(self) -> bool:
        """Whether so much is on the way that a request has to wait."""
        return self.outstanding > WINDOW or len(self.pending) >= wire.REQUESTS

    def dispatch(self, request: Pending) -> None:
        """Gives a request its number and sends it."""
        request.message.seq = seq = self.next
        self.next = seq + 1
        if not self.pending:
            self.heard = time.monotonic()
        request.frames = m.encode(request.message)
        self.pending[seq] = request
        self.outstanding += request.nbytes
        sockets.send(self.socket, request.frames)


class Connections:
    """The channels to all servers of the job that `member` belongs to."""

    def __init__(self, context: Any, member: Membership, mode: str) -> None:
        self._context, self.member, self.mode = context, member, mode
        self.timeout = member.settings.timeout
        self.deferred: Exception | None = None  # of a push that nobody waited for
        self._look_at = 0.0  # when to look at the clock again
        self._poller = zmq.Poller()
        self.channels: list[Channel] = []
        try:
            for server, endpoint in enumerate(member.welcome.endpoints):
                self.channels.append(self._open(server, endpoint))
                self._hello(self.channels[-1])
            self._until(
                lambda: all(c.incarnation for c in self.channels), member.settings.join_timeout, "the handshake"
            )
        except BaseException:
            self.close()
            raise

    def _open(self, server: int, endpoint: str) -> Channel:
        identity = f"{self.member.job}/{self.member.rank}/{self.member.incarnation}".encode()[:255]
        socket = sockets.connect(self._context, endpoint, self.member.keys, identity)
        socket.setsockopt(zmq.RCVTIMEO, SLICE_MS)
        self._poller.register(socket, zmq.POLLIN)
        return Channel(server, endpoint, socket)

    def close(self) -> None:
        """Closes the sockets."""
        for channel in self.channels:
            channel.socket.close(200)

    def send(
        self,
        server: int,
        message: Any,
        call: Call | None = None,
        sink: Sink | None = None,
        nbytes: int = 0,
        priority: int | None = None,
    ) -> None:
        """Sends a request, which gets its number then. `sink` is given the answer, `call` counts it.

        `nbytes` is how much it and its answer bring on the way. With a `priority` it may wait behind others for room on
        the connection, and overtake those of other keys; without, everything before it is sent first.
        """
        channel = self.channels[server]
        request = Pending(message, nbytes, call, sink)
        if call is not None:
            call.missing += 1
        if not channel.full and not channel.backlog:
            channel.dispatch(request)
            return
        backlog = channel.backlog
        if priority is None:
            self._until(lambda: not channel.full and not backlog, self.timeout, f"{channel} to take what is on the way")
            channel.dispatch(request)
            return
        keys = message.keys if hasattr(message, "keys") else [message.key]
        backlog.put(request, frozenset(keys), priority, nbytes)
        self._until(lambda: backlog.nbytes <= BACKLOG and len(backlog) <= wire.REQUESTS, self.timeout,
                    f"{channel} to take {channel.outstanding} bytes in {len(channel.pending)} requests")  # fmt: skip

    def wait(self, call: Call, what: str) -> None:
        """Returns when all requests of `call` are answered. Raises what went wrong with the first that was refused."""
        try:
            self._until(lambda: call.missing == 0 or call.error is not None, self.timeout, what)
        except BaseException:
            self._forget(call)
            raise
        if call.error is not None:
            self._forget(call)
            raise call.error

    def flush(self, timeout: float) -> None:
        """Returns when no request is without an answer."""
        self._until(
            lambda: not any(c.pending or c.backlog for c in self.channels), timeout, "the last pushes to be taken"
        )

    def check(self) -> None:
        """Raises what went wrong since the last call, with a push or with the job. Called by every call of the store:
        a worker that only pushes hears of it too, and follows a server that was started again."""
        for channel in self.channels:
            if channel.pending:
                self._receive(0)
                break
        self._raise()
        if time.monotonic() >= self._look_at:
            self._look()

    # Inside.

    def _raise(self) -> None:
        if self.deferred is not None:
            error, self.deferred = self.deferred, None
            raise error
        self.member.check()

    def _forget(self, call: Call) -> None:
        """What is still on its way for `call` is no longer written anywhere."""
        for channel in self.channels:
            for request in (*channel.pending.values(), *channel.backlog):
                if request.call is call:
                    request.sink = None

    def _until(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            came = self._receive(SLICE_MS)
            if came and time.monotonic() < self._look_at:
                continue
            if done():
                return
            self._raise()
            self._look()
            if time.monotonic() > deadline:
                silent = [f"{c}: {_describe(c)}" for c in self.channels if c.pending or not c.incarnation]
                raise DeadlineError(f"waited {timeout:g} s for {what}; no answer from {'; '.join(silent) or 'anyone'}")

    def _receive(self, timeout: int) -> bool:
        """Takes all answers that are there, waiting up to `timeout` milliseconds for the first. Whether there were
        any."""
        busy = [c for c in self.channels if c.pending or not c.incarnation]
        if len(busy) == 1:
            return self._take_all(busy[0], 0 if timeout else sockets.NOW)
        ready = dict(self._poller.poll(timeout))
        for channel in self.channels:
            if channel.socket in ready:
                self._take_all(channel, sockets.NOW)
        return bool(ready)

    def _take_all(self, channel: Channel, flags: int) -> bool:
        """Takes the answers of one server; without DONTWAIT it waits a little for the first."""
        socket, any_came = channel.socket, False
        while True:
            try:
                frames = sockets.receive(socket, flags)
            except zmq.Again:
                break
            any_came, flags = True, sockets.NOW
            try:
                self._take(channel, m.decode(frames))
            except ProtocolError as error:
                log.warning("%s sent no valid message: %s", channel, error)
            if not channel.pending:
                break
        if any_came:
            channel.heard = time.monotonic()
        return any_came

    def _take(self, channel: Channel, answer: Any) -> None:
        if isinstance(answer, m.Ready):
            self._ready(channel, answer)
            return
        seq = getattr(answer, "seq", 0)
        if isinstance(answer, m.Refused) and seq == 0:
            self.deferred = self.deferred or error_of(answer)
            return
        pending = channel.pending.pop(seq, None)
        if pending is None:
            return  # answered before
        channel.outstanding -= pending.nbytes
        call = pending.call
        if isinstance(answer, m.Refused):
            if call is not None:
                call.error = call.error or error_of(answer)
            else:
                self.deferred = self.deferred or error_of(answer)
        elif pending.sink is not None:
            try:
                pending.sink(answer)
            except Exception as error:
                if call is None:
                    raise
                call.error = call.error or error
        if call is not None:
            call.missing -= 1
        while channel.backlog and not channel.full:
            channel.dispatch(channel.backlog.take())

    # Silence.

    def _hello(self, channel: Channel) -> None:
        member = self.member
        oldest = min(channel.pending, default=channel.next)
        hello = m.Hello(wire.VERSION, member.job, member.rank, member.incarnation, member.welcome.workers,
                        self.mode, member.settings.staleness, oldest)  # fmt: skip
        channel.asked, channel.greeted = time.monotonic(), True
        sockets.send(channel.socket, m.encode(hello))

    def _look(self) -> None:
        """Asks the servers that have been silent, and follows those that have moved."""
        now, pulse = time.monotonic(), self.member.pulse
        self._look_at = now + SLICE_MS / 1000
        for channel in self.channels:
            if pulse is not None and len(pulse.endpoints) == len(self.channels):
                endpoint = pulse.endpoints[channel.server]
                if endpoint != channel.endpoint:
                    self._move(channel, endpoint)
            if (channel.pending or not channel.incarnation) and now - max(channel.heard, channel.asked) > RETRY:
                self._hello(channel)

    def _move(self, channel: Channel, endpoint: str) -> None:
        log.warning("%s is now at %s", channel, endpoint)
        self._poller.unregister(channel.socket)
        channel.socket.close(0)
        channel.socket, channel.endpoint = self._open(channel.server, endpoint).socket, endpoint
        self._hello(channel)

    def _ready(self, channel: Channel, ready: m.Ready) -> None:
        if channel.incarnation and ready.incarnation != channel.incarnation:
            log.warning("%s was started again", channel)
        first = not channel.incarnation
        channel.incarnation = ready.incarnation
        if ready.expects > channel.next:
            raise JobFailedError(f"{channel} has taken requests of this worker that it never sent")
        asked, channel.greeted = channel.greeted, False
        if first and not channel.pending:
            return
        if not asked and ready.expects == channel.resent:
            return  # about a gap that is mended: every request that came after it may have set off one of these
        channel.resent = ready.expects
        for seq, pending in list(channel.pending.items()):
            if seq >= ready.expects:
                sockets.send(channel.socket, pending.frames)
            elif isinstance(pending.message, m.Push | m.PushRows):  # it is known; only the answer may be lost
                message = pending.message
                keys, piece = (message.keys, message.piece) if isinstance(message, m.Push) else ([message.key], 0)
                again = m.Pull(seq, keys if getattr(message, "answer", False) else keys[:1], piece)
                sockets.send(channel.socket, m.encode(again))
            else:
                sockets.send(channel.socket, pending.frames)


def _describe(channel: Channel) -> str:
    if not channel.pending:
        return "no handshake"
    message = next(iter(channel.pending.values())).message
    key = getattr(message, "key", None)
    keys = getattr(message, "keys", None)
    name = f" of key {key!r}" if key is not None else f" of key {keys[0]!r}" if keys else ""
    return f"{type(message).__name__}{name}" + (
        f" and {len(channel.pending) - 1} more" if len(channel.pending) > 1 else ""
    )
