"""A process's place in a job: joining, the heart that beats for it, barriers, leaving. Used by workers and servers."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

import mxopt.errors as errors
from mxopt.errors import DeadlineError, JobFailedError, KVStoreError, ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore import sockets, wire
from mxopt.kvstore.address import check_host
from mxopt.settings import Job

SLICE_MS = 100  # how long a wait lasts at most before it looks whether the job has failed
RETRY = 2.0  # seconds until a question to the scheduler is asked again


class Membership:
    """This process as member `role` of the job that `settings` names.

    `endpoint` is where workers reach a server. Raises ArgumentError where the scheduler's host doesn't exist,
    DeadlineError where the job doesn't come together in time, KVStoreError where the scheduler refuses the process.
    """

    def __init__(self, context: Any, settings: Job, role: str, endpoint: str = "", rank: int = -1) -> None:
        check_host(settings.host)
        self.settings, self.role = settings, role
        self.keys = sockets.load_keys(settings.keys)
        self.incarnation = secrets.token_hex(8)
        self._context = context
        self._socket = sockets.connect(context, settings.scheduler, self.keys)
        self._barriers = 0
        self._heart: _Heart | None = None
        try:
            self.welcome = self._join(endpoint, rank)
        except BaseException:
            self._socket.close(0)
            raise
        self.rank, self.job = self.welcome.rank, self.welcome.job
        self._heart = _Heart(context, self)

    @property
    def pulse(self) -> m.Pulse | None:
        """The last that was heard of the scheduler."""
        return self._heart.pulse if self._heart else None

    def watch(self, listener: Callable[[], None]) -> None:
        """Calls `listener` in the heart's thread whenever the job's state changes."""
        if self._heart:
            self._heart.listener = listener

    def check(self) -> None:
        """Raises JobFailedError where another process has failed."""
        if self._heart is not None and self._heart.failure:
            raise JobFailedError(self._heart.failure)

    def barrier(self, payload: Any = None) -> Any:
        """Waits until all workers have come here; returns rank 0's payload."""
        self._barriers += 1
        question = m.Barrier(self.job, self.rank, self._barriers, payload)
        deadline = time.monotonic() + self.settings.timeout
        asked = 0.0
        while True:
            self.check()
            now = time.monotonic()
            if now > deadline:
                raise DeadlineError(
                    f"barrier {self._barriers}: not all workers came within {self.settings.timeout:g} s"
                )
            if now - asked > RETRY:
                sockets.send(self._socket, m.encode(question))
                asked = now
            answer = self._receive()
            if isinstance(answer, m.Passed) and answer.number == self._barriers:
                return answer.payload
            if isinstance(answer, m.Refused):
                raise error_of(answer)

    def leave(self, error: str = "") -> None:
        """Says goodbye, and stops the heart. `error` makes the whole job fail."""
        if self._heart is None:
            return
        self._heart.stop()
        failed = bool(self._heart.failure)
        self._heart = None
        goodbye = m.encode(m.Goodbye(self.job, self.role, self.rank, self.incarnation, error[: wire.MAX_TEXT]))
        sockets.send(self._socket, goodbye)
        deadline = time.monotonic() + (0.5 if failed else 3)
        while time.monotonic() < deadline and not isinstance(self._receive(), m.Farewell):
            pass
        self._socket.close()

    def _join(self, endpoint: str, rank: int) -> m.Welcome:
        s = self.settings
        hello = m.encode(
            m.Join(wire.VERSION, s.job, self.role, rank if rank >= 0 else s.rank, s.workers, s.servers, endpoint,
                   self.incarnation, sockets.name_of_process())
        )  # fmt: skip
        deadline = time.monotonic() + s.join_timeout
        asked, missing = 0.0, f"the scheduler at {s.scheduler} doesn't answer"
        if self.keys is None:
            missing += " (if it uses keys, MXOPT_KVSTORE_KEYS must name them)"
        while (now := time.monotonic()) < deadline:
            if now - asked > s.heartbeat:
                sockets.send(self._socket, hello)
                asked = now
            answer = self._receive()
            if isinstance(answer, m.Welcome):
                return answer
            if isinstance(answer, m.Waiting):
                missing = answer.text
            if isinstance(answer, m.Refused):
                raise error_of(answer)
        raise DeadlineError(f"the job didn't come together within {s.join_timeout:g} s: {missing}")

    def _receive(self) -> Any:
        if not self._socket.poll(SLICE_MS):
            return None
        try:
            return m.decode(self._socket.recv_multipart())
        except ProtocolError:
            return None


class _Heart:
    """A thread that beats, and hears how the job stands."""

    def __init__(self, context: Any, member: Membership) -> None:
        self.failure = ""
        self.pulse: m.Pulse | None = None
        self.listener: Callable[[], None] | None = None
        self._member, self._context = member, context
        self._stop = context.socket(zmq.PAIR)
        self._address = f"inproc://heart-{member.incarnation}"
        self._stop.bind(self._address)
        self._thread = threading.Thread(target=self._run, name="mxopt-heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.send(b"")
        self._thread.join(5)
        self._stop.close(0)

    def _run(self) -> None:
        member = self._member
        stop = self._context.socket(zmq.PAIR)
        stop.connect(self._address)
        socket = sockets.connect(self._context, member.settings.scheduler, member.keys)
        beat = m.encode(m.Beat(member.job, member.role, member.rank, member.incarnation))
        interval, limit = member.welcome.heartbeat, member.welcome.dead_after
        poller = zmq.Poller()
        poller.register(stop, zmq.POLLIN)
        poller.register(socket, zmq.POLLIN)
        heard, next_beat, before = time.monotonic(), 0.0, time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if now - before > 2 * interval:  # this process itself has slept: its silence is no one else's
                    heard += now - before
                before = now
                if now >= next_beat:
                    sockets.send(socket, beat)
                    next_beat = now + interval
                if now - heard > limit:
                    self._fail(f"the scheduler at {member.settings.scheduler} has not been heard of for {limit:g} s")
                ready = dict(poller.poll(max(1, int((next_beat - now) * 1000))))
                if stop in ready:
                    return
                if socket in ready:
                    heard = time.monotonic()
                    self._hear(socket.recv_multipart())
        finally:
            socket.close(0)
            stop.close(0)

    def _hear(self, frames: list[bytes]) -> None:
        try:
            answer = m.decode(frames)
        except ProtocolError:
            return
        if isinstance(answer, m.Pulse):
            changed = answer != self.pulse
            self.pulse = answer
            if answer.state == "failed":
                self._fail(answer.text)
            elif changed and self.listener:
                self.listener()
        elif isinstance(answer, m.Refused):
            self._fail(answer.text)

    def _fail(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            if self.listener:
                self.listener()


def error_of(refused: m.Refused) -> Exception:
    """The exception that a Refused stands for."""
    klass = getattr(errors, refused.code, KVStoreError)
    if not (isinstance(klass, type) and issubclass(klass, errors.MXOptError)):
        klass = KVStoreError
    made: Exception = klass(refused.text)
    return made
