"""A ROUTER socket as a scheduler's or server's loop uses it: messages come and leave, their large
arrays by loans (`mxopt.kvstore.loans`) where the other side lends memory."""

from __future__ import annotations

import contextlib
import logging

import zmq

from mxopt.kvstore import lending, messages as m, sockets, wire
from mxopt.kvstore.inlet import Inlet
from mxopt.kvstore.loans import Loans, plain_room
from mxopt.kvstore.message import Message
from mxopt.kvstore.pipes import Pipes
from mxopt.kvstore.wire import Frame
from mxopt_server.unsent import Unsent

log = logging.getLogger("mxopt.server")

LENDING = 256  # connections that lend memory


class Door:
    """Receives and sends messages by a bound socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.inlet = Inlet(socket)
        self._loans: dict[bytes, Loans] = {}  # by route
        self._pipes: dict[bytes, Pipes] = {}  # of those routes whose last message has come by them
        self._unsent = Unsent()
        self._more = sockets.MORE | sockets.NOW

    def receive(self, milliseconds: int) -> list[Frame] | None:
        """The next message, the route first; an empty list where it is none for the loop. None if
        there is none in that time."""
        came = self.inlet.receive(milliseconds)
        if came is None:
            return None
        route, message = came
        if route is None:
            self._pipes.pop(message[0], None)
        else:
            loans = self._loans.get(route)  # none where the worker is gone since
            if loans is not None and loans.pipes is not None:
                self._pipes[route] = loans.pipes
            message = [route, *message]
        if len(message) == 2 and type(message[1]) is bytes and message[1].startswith(lending.MARK):
            return self._lent(*message)
        return message

    def send(self, route: bytes, message: Message) -> bool:
        """Sends a message to a route; drops it where that is gone, or reads too slowly. Whether
        there is a connection."""
        frames = m.encode(message)
        loans = self._loans.get(route)
        post = self._by_socket if len(frames) > 1 else self._post
        try:
            if loans is None:
                post(route, [*map(wire.buffer_of, frames)])  # of loans that are gone, perhaps
            else:
                loans.send(frames, lambda frames: post(route, frames))
        except zmq.ZMQError as error:
            log.info("an answer couldn't be sent: %s", error)
            if error.errno == zmq.EHOSTUNREACH:
                self._forget(route)
                return False
        return True

    def room(self, route: bytes, nbytes: int) -> Frame:
        """Memory for the data of a message to a route, which needn't be copied again."""
        loans = self._loans.get(route)
        (frame,) = plain_room([nbytes]) if loans is None else loans.room([nbytes])
        return frame

    def _forget(self, route: bytes) -> None:
        """Gives up what is lent by a route, and its pipes."""
        loans = self._loans.pop(route, None)
        self._pipes.pop(route, None)
        if loans is not None and loans.pipes is not None:
            self.inlet.drop(loans.pipes)

    def _post(self, route: bytes, frames: list[Frame]) -> bool:
        """Sends what has no arrays of its own frames: by the pipe, where there is one and has
        room."""
        pipes = self._pipes.get(route)
        if pipes is not None and pipes.open:
            try:
                if pipes.offer(frames):
                    return True
            except OSError as error:  # the other side finds the end behind the part, and gives the pipe up
                log.info("a connection goes on without its pipes: %s", error)
                self.inlet.drop(pipes)
        return self._by_socket(route, frames)

    def _by_socket(self, route: bytes, frames: list[Frame]) -> bool:
        last = frames.pop()
        large = len(last) >= wire.SMALL
        if large and not self._unsent.has_room(route, len(last)):
            log.info("an answer isn't sent: those before it haven't been read")
            return False
        self.inlet.disturbed()
        self.socket.send(route, self._more)
        for frame in frames:
            self.socket.send(frame, self._more)
        tracker = self.socket.send(last, sockets.NOW, not large, large)
        if tracker is not None:
            self._unsent.add(route, len(last), tracker)
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
            for of in [of for of, each in self._loans.items() if not each.alive or of == route]:
                self._forget(of)
            if len(self._loans) >= LENDING:
                return
            try:
                loans = self._loans[route] = Loans(offer)
            except OSError as error:
                log.info("memory that is lent can't be used: %s", error)
                return
            if loans.pipes is not None:
                self.inlet.add(route, loans.pipes)
        with contextlib.suppress(zmq.ZMQError):
            self._post(route, [loans.offer()])
