"""A worker's session with one server, both by hand: no sockets, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.session import Session


class Peer:
    """What is sent lies in `sent`; the test answers it, and sets the `time`."""

    def __init__(self, greeted: bool = True) -> None:
        self.time, self.sent, self.connected = 0.0, list[Any](), list[str]()
        self.alone = list[bool]()  # of each sent, whether no other was on its way
        hello = m.Hello(wire.VERSION, "job", 0, 1, "me", 1, "async", 0)

        def connect(server: int, endpoint: str) -> Callable[[list[Any], bool], None]:
            self.connected.append(endpoint)
            return self._post

        self.session = Session(hello, ["here"], connect, lambda: self.time)
        self.channel = self.session.channels[0]
        if greeted:
            self.session.greet(self.channel)
            self.ready(1)
            self.sent.clear()

    def send(self, message: Any, **more: Any) -> Call:
        call = Call()
        self.session.send(0, message, call, **more)
        return call

    def _post(self, frames: list[Any], alone: bool) -> None:
        self.sent.append(frames)
        self.alone.append(alone)

    def posted(self) -> list[Any]:
        """The messages sent since the last look."""
        found, self.sent[:] = [m.decode([bytes(f) for f in frames]) for frames in self.sent], []
        return found

    def answer(self, message: Any) -> None:
        self.session.take(0, message)

    def ready(self, expects: int, epoch: int = 1) -> None:
        self.answer(m.Ready(0, epoch, expects))
