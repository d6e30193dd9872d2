"""A ROUTER socket as a scheduler's or server's loop uses it: messages come and leave, their large
arrays by loans (`mxopt.kvstore.loans`) where the other side lends memory."""

from __future__ import annotations

import contextlib
import logging

import zmq

from mxopt.kvstore import lending, messages as m, sockets, wire
from mxopt.kvstore.loans import Loans
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Frame

log = logging.getLogger("mxopt.server")

LENDING = 256  # connections that lend memory


class Door:
    """Receives and sends messages by a bound socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._loans: dict[bytes, Loans] = {}  # by route
        self._more = sockets.MORE | sockets.NOW

    def receive(self, flags: int = 0) -> list[Frame]:
        """The next message, the route first; an empty list where it is none for the loop. Raises
        zmq.Again where there is none."""
        message = sockets.receive(self.socket, flags)
        if len(message) == 2 and type(message[1]) is bytes and message[1].startswith(lending.MARK):
            return self._lent(*message)
        return message

    def send(self, route: bytes, message: Message) -> bool:
        """Sends a message to a route; drops it where that is gone, or reads too slowly. Whether
        there is a connection."""
        frames = m.encode(message)
        loans = self._loans.get(route)
        try:
            if loans is None:
                self._post(route, frames)
            else:
                loans.send(frames, lambda frames: self._post(route, frames))
        except zmq.ZMQError as error:
            log.info("an answer couldn't be sent: %s", error)
            if error.errno == zmq.EHOSTUNREACH:
                self._loans.pop(route, None)
                return False
        return True

    def _post(self, route: bytes, frames: list[Frame]) -> bool:
        last = frames.pop()
        self.socket.send(route, self._more)
        for frame in frames:
            self.socket.send(frame, self._more)
        self.socket.send(last, sockets.NOW, len(last) < wire.SMALL)
        return True

    def _lent(self, route: bytes, message: bytes) -> list[Frame]:
        loans = self._loans.get(route)
        if message.startswith(lending.OFFER):
            self._offered(route, loans, message)
            return []
        frames = None if loans is None else loans.received(message)
        return [] if frames is None else [route, *frames]

    def _offered(self, route: bytes, loans: Loans | None, offer: bytes) -> None:
        """Answers a process that offers to lend memory, if that memory can be opened."""
        if loans is None or not loans.is_of(offer):
            self._loans = {of: each for of, each in self._loans.items() if each.alive and of != route}
            if len(self._loans) >= LENDING:
                return
            try:
                loans = self._loans[route] = Loans(offer)
            except OSError as error:
                log.info("memory that is lent can't be used: %s", error)
                return
        with contextlib.suppress(zmq.ZMQError):
            self._post(route, [loans.offer()])
