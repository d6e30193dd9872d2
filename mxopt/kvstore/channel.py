"""What is under way between a worker and one server: requests, and the calls that wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.backlog import Backlog

BACKLOG = 24 << 20  # bytes that wait to be sent to it; they leave, by priority, while a call of the store waits
RETRY = 3.0  # seconds of silence until a server is asked what has arrived

Sink = Callable[[Any], None]


class Call:
    """Requests that are waited for together."""

    __slots__ = ("error", "missing")

    def __init__(self) -> None:
        self.missing = 0
        self.error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more: all is answered, or something was refused."""
        return self.missing == 0 or self.error is not None


class Request:
    """A message without an answer. It has `frames` once it was sent."""

    __slots__ = ("call", "frames", "message", "nbytes", "sink")

    def __init__(self, message: Any, nbytes: int, call: Call | None, sink: Sink | None) -> None:
        self.message, self.nbytes, self.call, self.sink = message, nbytes, call, sink
        self.frames: list[Any] = []

    def keep(self) -> None:
        """Makes its arrays its own."""
        if self.message.FRAMES:
            self.message.data = [bytes(frame) for frame in self.message.data]
            self.frames = m.encode(self.message) if self.frames else []


class Channel:
    """What is under way between the worker and one server."""

    def __init__(self, server: int, endpoint: str, now: float) -> None:
        self.server, self.endpoint = server, endpoint
        self.next = 1  # the number of the next request
        self.pending: dict[int, Request] = {}  # sent, without an answer, by number
        self.backlog = Backlog()
        self.outstanding = 0  # bytes of what is pending
        self.read = 0  # bytes of the answers that have come
        self.incarnation = ""  # of the server; "" before the handshake
        self.heard = now
        self.asked = -RETRY
        self.greeted = False  # whether a Hello is without its Ready
        self.taken = False  # whether the server has taken all that was sent
        self.lacks: list[tuple[int, Any, int]] = []  # (worker, key, number) of the pushes it waits for, as it said last
        self.config_sent = 0  # the version of the optimizer's config that this server knows

    def __str__(self) -> str:
        return f"server {self.server} ({self.endpoint})"

    @property
    def full(self) -> bool:
        """Whether so much is on the way that a request has to wait."""
        return self.outstanding > wire.WINDOW or len(self.pending) >= wire.REQUESTS

    @property
    def waits(self) -> bool:
        """Whether something is to come from the server."""
        return bool(self.pending) or not self.incarnation

    @property
    def room(self) -> bool:
        """Whether the worker may go on making requests, and needn't wait for what is in the backlog."""
        return self.backlog.nbytes <= BACKLOG and len(self.backlog) <= wire.REQUESTS

    def describe(self) -> str:
        """What it waits for, in words."""
        if not self.pending:
            return "no handshake"
        message = next(iter(self.pending.values())).message
        keys = getattr(message, "keys", None) or [k for k in (getattr(message, "key", None),) if k is not None]
        name = f" of key {keys[0]!r}" if keys else ""
        more = f" and {len(self.pending) - 1} more" if len(self.pending) > 1 else ""
        lacks = ", ".join(
            f"key {key!r} lacks push number {number} of worker {rank}" for rank, key, number in self.lacks[:3]
        )
        return f"{type(message).__name__}{name}{more}" + (f", where {lacks}" if lacks else "")
