"""The sockets of a scheduler or server: a Unix socket for this user's processes on this machine,
TCP for others."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket as socket_module
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import zmq

from mxopt.errors import ArgumentError
from mxopt.kvstore import unix
from mxopt.kvstore.address import check_advertised, resolved
from mxopt.kvstore.keys import KeyPair, load_keys
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Frame
from mxopt.settings import Job
from mxopt_server import routers
from mxopt_server.door import Door

log = logging.getLogger("mxopt.server")

LAPSE = 35.0  # seconds without a sign of life, which ZeroMQ's own threads give, until a connection is closed
TICK = 0.1  # seconds that a process waits for messages before it looks at the clock

Send = Callable[[bytes, Message], bool]


@dataclass(frozen=True)
class Wanted:
    """What is asked for: whether TCP at all, whether nothing else, and there which host and port
    (0: a free one)."""

    tcp: bool
    only: bool
    host: str
    port: int
    insecure: bool


class Doors:
    """The sockets of one process of `job`, bound.

    Without keys one ROUTER has both doors. With keys TCP is encrypted and has a ROUTER of its own,
    since one that asks for keys asks on Unix sockets too. Raises ArgumentError for an address that
    doesn't exist, or would let in whoever can reach it, KVStoreError where one can't be bound. A
    connection is closed after `lapse` seconds without a sign of life.

    Attributes
    ----------
    announced : the endpoint to tell people
    endpoint : what to tell the job: `ipc://PATH tcp://HOST:PORT`, or one of them
    """

    def __init__(self, role: str, job: Job, wanted: Wanted, lapse: float = LAPSE) -> None:
        self._lapse = lapse
        keys = load_keys(job.keys) if wanted.tcp else None
        if wanted.tcp:
            wanted = replace(wanted, host=resolved(wanted.host))
            routers.check_bind(wanted.host, keys, wanted.insecure)
            if job.advertised:
                check_advertised(job.advertised, "--advertise or DMLC_NODE_HOST")
        routers.allow_connections()
        self._doors: list[Door] = []
        self._socket: Path | None = None
        self._context = zmq.Context()
        self._guard = routers.authenticator(self._context, keys)
        try:
            tcp = self._bind_tcp(job, wanted, keys) if wanted.tcp else ""
            local = "" if wanted.only else self._bind_unix(role, job, keys)
        except BaseException:
            self.close()
            raise
        self.announced = f"tcp://{wanted.host}:{self._port}" if tcp else local
        self.endpoint = f"{local} {tcp}".strip()
        if tcp and keys is None:
            who = "any user of this machine" if routers.is_loopback(wanted.host) else "whoever reaches this machine"
            log.warning(
                "%s may read and change this job at %s: it has no keys; a job with DMLC_PS_ROOT_URI=ipc://PATH is its"
                " owner's alone%s", who, self.announced, f" (this process is at {local} too)" if local else "",
            )  # fmt: skip

    def sender(self) -> Send:
        """A function that sends a message to a route; to one that is gone, or reads too slowly, it
        drops it. It tells whether there is a connection."""
        senders = [door.send for door in self._doors]
        if len(senders) == 1:
            return senders[0]
        return lambda route, message: senders[route[0]](route[1:], message)

    def room(self, route: bytes, nbytes: int) -> Frame:
        """Memory for the data of a message to a route."""
        if len(self._doors) == 1:
            return self._doors[0].room(route, nbytes)
        return self._doors[route[0]].room(route[1:], nbytes)

    def received(self, pauses: bool = False) -> Iterator[list[Frame]]:
        """Messages as they come, each a list of frames, the route first, large ones not copied;
        with `pauses` an empty list where there is none for now. Ends after a tick's time."""
        return received(self._doors[0], pauses) if len(self._doors) == 1 else _by_all(self._doors, pauses)

    def close(self) -> None:
        """Closes the sockets; what was sent leaves still, if it can within a little while."""
        for door in self._doors:
            door.socket.close()
        if self._guard is not None:
            self._guard.stop()
        self._context.term()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            if self._socket.parent.name.startswith(unix.JOB):
                with contextlib.suppress(OSError):  # others are in it
                    self._socket.parent.rmdir()

    def _bind_tcp(self, job: Job, wanted: Wanted, keys: KeyPair | None) -> str:
        router = routers.router(self._context, keys, self._lapse)
        self._doors.append(Door(router))
        self._port = routers.bind_tcp(router, wanted.host, wanted.port)
        shown = job.advertised or (wanted.host if wanted.host != "0.0.0.0" else socket_module.gethostname())
        return f"tcp://{shown}" if ":" in shown else f"tcp://{shown}:{self._port}"

    def _bind_unix(self, role: str, job: Job, keys: KeyPair | None) -> str:
        """Binds the Unix socket; returns its endpoint, "" where there is none besides TCP."""
        if unix.is_unix(job.host):
            path = unix.path_of(job.host)
            endpoint = job.host if role == "scheduler" else f"{unix.SCHEME}{path.with_name(f'{role}-{os.getpid()}')}"
        elif zmq.has("ipc"):
            endpoint = f"{unix.SCHEME}{unix.user_folder() / f'{role}-{os.getpid()}'}"
        else:
            return ""
        try:
            unix.make_folder(endpoint)
        except ArgumentError as error:
            if unix.is_unix(job.host):
                raise
            log.info("there is no Unix socket besides TCP: %s", error)
            return ""
        routers.sweep(unix.user_folder())
        if keys is not None or not self._doors:
            self._doors.insert(0, Door(routers.router(self._context, None, self._lapse)))
        routers.bind_unix(self._doors[0].socket, endpoint)
        self._socket = unix.path_of(endpoint)
        return endpoint


def received(door: Door, pauses: bool) -> Iterator[list[Frame]]:
    """What `Doors.received` gives, of one socket."""
    until, waits = time.monotonic() + TICK, True
    while time.monotonic() < until:
        message = door.receive(int(TICK * 1000) if waits else 0)
        if message is None:
            if waits:
                return
            waits = True
            yield []
        else:
            waits = not pauses
            if message:
                yield message


def _by_all(doors: list[Door], pauses: bool) -> Iterator[list[Frame]]:
    """The same of several; the first byte of a route says which."""
    until, waits = time.monotonic() + TICK, True
    while (left := until - time.monotonic()) > 0:
        if waits and not any(door.inlet.ready for door in doors):
            poll = select.poll()
            for file in (file for door in doors for file in door.inlet.files):
                poll.register(file, select.POLLIN)
            poll.poll(max(1, int(left * 1000)))
        came = [(k, message) for k, door in enumerate(doors) if (message := door.receive(0)) is not None]
        if not waits and not came:
            yield []
        waits = not (pauses and came)
        for k, (route, *frames) in ((k, message) for k, message in came if message):
            yield [bytes([k]) + route, *frames]
