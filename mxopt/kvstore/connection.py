"""A worker's calls that wait: a session, the connections that carry it to the servers, and
deadlines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.errors import DeadlineError, KVStoreError, ProtocolError, counted
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call, Channel, Post, Sink
from mxopt.kvstore.membership import Membership
from mxopt.kvstore.session import Session
from mxopt.kvstore.transport import SLICE_S, Line, Transport
from mxopt.kvstore.wire import Frame

log: logging.Logger = logging.getLogger("mxopt.kvstore")


class Connections:
    """The session of the worker `member` with the servers of its job, and the lines that carry
    it."""

    def __init__(self, transport: Transport, member: Membership, mode: str) -> None:
        self._transport = transport
        self._member = member
        settings, welcome = member.settings, member.welcome
        self._timeout = settings.timeout
        self._waits = 0  # calls that have waited
        self._look_at = 0.0  # when to look at the clock again
        self._identity = f"{member.job}/{member.rank}/{member.token}".encode()[:255]
        hello = m.Hello(wire.VERSION, member.job, member.rank, member.epoch, member.token, welcome.workers, mode,
                        settings.staleness)  # fmt: skip
        self._lines: dict[int, Line] = {}
        try:
            self.session: Session = Session(hello, welcome.endpoints, self._connect, transport.clock)
            self.channels: list[Channel] = self.session.channels
            for channel in self.channels:
                self.session.greet(channel)
            self._until(lambda: self.session.ready, settings.join_timeout, "the handshake")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the lines."""
        for line in self._lines.values():
            line.close()

    def send(
        self,
        server: int,
        message: Any,
        call: Call | None = None,
        sink: Sink | None = None,
        nbytes: int = 0,
        priority: int | None = None,
    ) -> None:
        """Makes a request, see `Session.send`. Waits while too much is queued for the server."""
        sent, channel = self.session.send(server, message, call, sink, nbytes, priority), self.channels[server]
        if not sent and not channel.room:
            requests = counted(len(channel.pending), "request")
            what = f"{channel} to take {counted(channel.outstanding, 'byte')} in {requests}"
            self._until(lambda: channel.room, self._timeout, what)

    def room(self, server: int, *sizes: int) -> list[Frame]:
        """Memory for the arrays of one message to a server, see `transport.Line.room`."""
        return self._lines[server].room(*sizes)

    def wait(self, call: Call, what: str) -> None:
        """Returns when all requests of `call` are answered. Raises the error of the first that was
        refused."""
        try:
            self._until(lambda: call.missing == 0 or call.error is not None, self._timeout, what)
        except BaseException:
            self.session.forget(call)
            raise
        if call.error is not None:
            self.session.forget(call)
            raise call.error

    def document(self, server: int, ask: Callable[[int], Any], what: str) -> bytes:
        """The whole document that a server sends in Chunks; `ask` makes the request for the part
        from a byte on. A server that was started again makes it anew, perhaps with its rows in
        another order: it is asked from the beginning then."""
        channel, parts = self.channels[server], list[bytes]()
        size, whole, epoch = 0, 1, channel.epoch
        while size < whole:
            answers: list[m.Chunk] = []
            call = Call()
            self.send(server, ask(size), call, answers.append, wire.CHUNK_BYTES)
            try:
                self.wait(call, what)
            except ProtocolError:
                if channel.epoch == epoch:
                    raise
            if channel.epoch != epoch:
                parts, size, whole, epoch = [], 0, 1, channel.epoch
                continue
            part, whole = bytes(wire.buffer_of(answers[0].data[0])), answers[0].total
            if whole and not part:
                raise KVStoreError(f"server {server} sent {what} only in part")
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def flush(self, timeout: float) -> None:
        """Returns when all requests are answered."""

        def taken() -> bool:
            for channel in self.channels:  # what may come later is asked for, once all has been sent
                if channel.pending and not channel.backlog and channel.hurried != channel.next:
                    channel.hurried = channel.next
                    self.session.greet(channel)
            return self.session.idle

        self._until(taken, timeout, "the last pushes to be taken")
        self._raise_deferred()

    def check(self) -> None:
        """Raises what went wrong since the last call, with a push or with the job. Called by every
        call of the store: a worker that only pushes hears of it too, and follows a server that was
        started again."""
        for channel in self.channels:
            if channel.pending or channel.greeted:
                self._take(channel.server, wait=False)
        self._raise_deferred()
        self._raise()
        if self._transport.clock() >= self._look_at:
            self._look()

    # Inside.

    def _connect(self, server: int, endpoint: str) -> Post:
        """Makes the line to a server, in the place of the one before."""
        if server in self._lines:
            self._lines[server].close()
        line = self._lines[server] = self._transport.connect(endpoint, self._identity)
        return line.send

    def _raise_deferred(self) -> None:
        error, self.session.deferred = self.session.deferred, None
        if error is not None:
            raise error

    def _raise(self) -> None:
        if self.session.failure is not None:
            raise self.session.failure
        self._member.check()

    def _look(self) -> None:
        self._look_at = self._transport.clock() + SLICE_S
        for channel in self.channels:
            if self._lines[channel.server].renewed() and channel.waits:
                self.session.greet(channel)
        pulse = self._member.pulse
        self.session.look(pulse.endpoints if pulse is not None else ())
        for channel, lost in zip(self.channels, pulse.lost if pulse is not None else (), strict=False):
            self.session.told_lost(channel.server, lost)

    def _until(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        deadline, told = self._transport.clock() + timeout, self.session.answers
        self._waits += 1
        while not done():
            if self._receive() and self._transport.clock() < self._look_at:
                continue
            if done():
                return
            self._raise()
            self._look()
            if self.session.answers != told and self.session.lacks:
                self._member.waits(self._waits, self.session.lacks)
            told = self.session.answers
            if self._transport.clock() > deadline:
                silent = self.session.silent() or "anyone"
                raise DeadlineError(f"waited {timeout:g} s for {what}; no answer from {silent}")

    def _receive(self) -> bool:
        """Takes all answers that have come, waiting a little for the first. Returns whether there
        were any."""
        busy = [channel.server for channel in self.channels if channel.waits]
        if len(busy) == 1:
            return self._take(busy[0], wait=True)
        ready = self._transport.wait([self._lines[server] for server in busy])
        for server in busy:
            if self._lines[server] in ready:
                self._take(server, wait=False)
        return bool(ready)

    def _take(self, server: int, wait: bool) -> bool:
        """Takes the answers of one server."""
        line, session, channel = self._lines[server], self.session, self.channels[server]
        came = False
        while (frames := line.receive(wait)) is not None:
            came, wait = True, False
            try:
                session.take(server, m.decode(frames))
            except ProtocolError as error:
                log.warning("%s sent no valid message: %s", channel, error)
            if not channel.waits:
                break
        if came:
            session.heard(server)
        return came
