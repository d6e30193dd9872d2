"""A call ends at its deadline, whatever arrives meanwhile, and says what it waited for."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mxopt.errors import DeadlineError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import ASK_AFTER_S, Call
from mxopt.kvstore.connection import Connections


class Chatter:
    """A transport to a server that answers Hello, and then says things that nobody has asked for;
    also its line."""

    def __init__(self) -> None:
        self.time = 0.0
        self.said: list[Any] = []

    def clock(self) -> float:
        return self.time

    def connect(self, endpoint: str, identity: bytes) -> Chatter:
        return self

    def send(self, frames: list[object], alone: bool = False) -> None:
        if isinstance(m.decode(frames), m.Hello):
            self.said.append(m.Ready(0, 1, 1))

    def receive(self, wait: bool) -> list[object] | None:
        self.time += 0.02 if wait else 0.0
        if self.said:
            return m.encode(self.said.pop())
        return m.encode(m.Done(99)) if wait else None

    def renewed(self) -> bool:
        return False

    def close(self) -> None: ...


class Silent(Chatter):
    """A transport to servers that never answer, which counts its open lines."""

    opened = 0

    def connect(self, endpoint: str, identity: bytes) -> Chatter:
        self.opened += 1
        return self

    def receive(self, wait: bool) -> list[object] | None:
        self.time += 0.02 if wait else 0.0
        return None

    def close(self) -> None:
        self.opened -= 1


def member() -> SimpleNamespace:
    return SimpleNamespace(
        settings=SimpleNamespace(timeout=5.0, join_timeout=5.0, staleness=0), pulse=None, job="j", rank=0,
        epoch=1, token="t", welcome=SimpleNamespace(endpoints=["here"], workers=1), check=lambda: None,
    )  # fmt: skip


def test_a_call_ends_at_its_deadline_though_something_keeps_arriving() -> None:
    transport = Chatter()
    connections = Connections(transport, member(), "async")  # type: ignore[arg-type]
    call = Call()
    connections.send(0, m.Push(0, False, ["w"], 0, 1, 0, 0, 0.0, 0, 0, False, [wire.bytes_of(np.zeros(2))]), call)
    began = transport.time
    with pytest.raises(DeadlineError, match=r"waited 5 s for x; no answer from server 0 \(here\): Push of key 'w'"):
        connections.wait(call, "x")
    assert transport.time - began < 5.2


class Broken(Chatter):
    """A server whose answer is lost with the connection, which is made again after a second."""

    def __init__(self) -> None:
        super().__init__()
        self.greeted: list[float] = []
        self.broken = True

    def send(self, frames: list[object], alone: bool = False) -> None:
        super().send(frames)
        if isinstance(m.decode(frames), m.Hello):
            self.greeted.append(self.time)

    def receive(self, wait: bool) -> list[object] | None:
        self.time += 0.1 if wait else 0.0
        return m.encode(self.said.pop()) if self.said else None

    def renewed(self) -> bool:
        renewed, self.broken = self.broken and self.time >= 1.0, self.broken and self.time < 1.0
        return renewed


def test_a_handshake_that_fails_leaves_no_line_open() -> None:
    """An open one would keep its process from ending."""
    transport = Silent()
    with pytest.raises(DeadlineError, match="waited 5 s for the handshake"):
        Connections(transport, member(), "async")  # type: ignore[arg-type]
    assert transport.opened == 0


def test_a_server_is_asked_at_once_what_has_arrived_when_its_connection_is_made_again() -> None:
    transport = Broken()
    connections = Connections(transport, member(), "async")  # type: ignore[arg-type]
    call = Call()
    connections.send(0, m.Pull(0, ["w"], 0, 0), call)
    with pytest.raises(DeadlineError):
        connections.wait(call, "x")
    first, again, *rest = transport.greeted
    assert first == 0.0
    assert 1.0 <= again <= 1.2
    assert all(now - before >= ASK_AFTER_S for before, now in pairwise([again, *rest]))
