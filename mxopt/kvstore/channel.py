"""Requests that are under way between a worker and one server, and the calls that wait for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.backlog import Backlog
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Frame

BACKLOG = 24 << 20  # bytes that wait to be sent to it; they leave, by priority, while a call of the store waits
ASK_AFTER_S = 3.0  # seconds of silence until a server is asked what has arrived

Sink = Callable[[Any], None]
Post = Callable[[list[Frame], bool], None]  # (frames, whether no other request is on its way)


class Call:
    """Requests that one call waits for, until none is missing or one was refused."""

    __slots__ = ("error", "missing")

    def __init__(self) -> None:
        self.missing: int = 0
        self.error: Exception | None = None


class Request:
    """A request without an answer. It has `frames` once it was sent."""

    __slots__ = ("call", "frames", "message", "nbytes", "sink")

    def __init__(self, message: Any, nbytes: int, call: Call | None, sink: Sink | None) -> None:
        self.message: Any = message
        self.nbytes: int = nbytes
        self.call: Call | None = call
        self.sink: Sink | None = sink
        self.frames: list[Frame] = []

    @property
    def in_part(self) -> bool:
        """Whether others are to follow, with which it counts as one."""
        message = self.message
        if isinstance(message, m.PushRows):
            return bool(message.offset + wire.size_of(message.data[0]) // 8 < message.total)
        return isinstance(message, m.StoreStates | m.Config) and (
            message.offset + wire.size_of(message.data[0]) < message.total
        )

    def keep(self) -> None:
        """Makes its arrays its own."""
        if self.message.FRAMES:
            self.message.data = [bytes(frame) for frame in self.message.data]
            self.frames = m.encode(self.message) if self.frames else []


class Channel:
    """The requests under way between the worker and one server."""

    def __init__(self, server: int, endpoint: str, post: Post, now: float) -> None:
        self.server = server
        self.endpoint = endpoint
        self.post = post
        self.next = 1  # the number of the next request
        self.pending: dict[int, Request] = {}  # sent, without an answer, by number
        self.kept: dict[int, Request] = {}  # answered, but to be sent again to a server that was started again
        self.backlog: Backlog[Request] = Backlog()
        self.outstanding = 0  # bytes of what is pending
        self.read = 0  # bytes of the answers that have come
        self.epoch = 0  # of the server; 0 before the handshake
        self.heard = now
        self.asked: float = -ASK_AFTER_S
        self.ask_at: float = math.inf  # when to ask again, whatever is heard
        self.greeted = False  # whether a Hello is without its Ready
        self.taken = False  # whether the server has taken all that was sent
        self.hurried = 0  # the next number when it was asked for all answers last
        self.lacks: list[tuple[int, Any, int]] = []  # (worker, key, number) of the pushes it waits for, as it said last
        self.lost = 0  # pushes of the workers, as far as is known
        self.config_sent = 0  # the version of the optimizer's config that this server knows

    def __str__(self) -> str:
        return f"server {self.server} ({self.endpoint})"

    def answered(self, seq: int, answer: Message) -> Request | None:
        """Takes out the request of that number; None where there is none. What came in part counts
        only with the last, and the config holds for what follows: a server that is started again
        needs them again."""
        request = self.pending.pop(seq, None)
        if request is None:
            return None
        self.outstanding -= request.nbytes
        message = request.message
        if isinstance(message, m.Config) and isinstance(answer, m.Done):
            message.version = max(message.version, answer.version)
        if not isinstance(answer, m.Refused) and (isinstance(message, m.Config) or request.in_part):
            self.kept[seq] = Request(message, 0, None, None)  # none of these has arrays of a caller
        if request.in_part:
            return request
        if isinstance(message, m.Config):
            needed = {message.number, *(getattr(r.message, "config", 0) for r in self.pending.values())}
            self._drop(lambda kept: isinstance(kept, m.Config) and kept.number not in needed)
        elif getattr(message, "offset", 0):
            self._drop(lambda kept: type(kept) is type(message))
        return request

    def _drop(self, what: Callable[[Any], bool]) -> None:
        self.kept = {seq: request for seq, request in self.kept.items() if not what(request.message)}

    def again(self) -> list[Request]:
        """All that a server that was started again needs, in order; it is to be numbered from 1."""
        found = sorted([*self.kept.items(), *self.pending.items()])
        self.kept, self.pending, self.next, self.outstanding = {}, {}, 1, 0
        return [request for _, request in found]

    @property
    def full(self) -> bool:
        """Whether too much is on its way already, so that a request must wait."""
        return self.outstanding > wire.WINDOW or len(self.pending) >= wire.REQUESTS

    @property
    def waits(self) -> bool:
        """Whether the server still owes an answer."""
        return bool(self.pending) or not self.epoch

    @property
    def room(self) -> bool:
        """Whether the worker may go on making requests, and needn't wait for what is in the
        backlog."""
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
