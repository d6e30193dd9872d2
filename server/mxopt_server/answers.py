"""What a server says to its workers, and who still waits to hear it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Key
from mxopt_server.applier import plain_error
from mxopt_server.contributions import Request
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")

Send = Callable[[bytes, Message], object]  # (route, message)


class Answers:
    """The answers of server `rank`: they wait until `leave`, which sends them by `post`. Large ones
    needn't where `at_once` says so: the worker reads them while the next are made."""

    def __init__(self, post: Send, rank: int, at_once: Callable[[], bool] = lambda: False) -> None:
        self._post, self.rank, self._at_once = post, rank, at_once
        self._waiting: list[tuple[bytes, Message]] = []
        self.sessions: dict[int, Session] = {}  # by the workers' ranks
        self.sent = self.refusals = 0

    def send(self, route: bytes, message: Message) -> None:
        """Has a message sent at the next `leave`."""
        self._waiting.append((route, message))

    def leave(self) -> None:
        """Sends what there is to be sent."""
        waiting, self._waiting = self._waiting, []
        for route, message in waiting:
            self._post(route, message)

    def done(self, session: Session, seq: int) -> None:
        """A request has been met."""
        if session.waiting:
            session.answered(seq)
        self._waiting.append((session.route, m.Done(seq)))

    def done_with(self, request: Request) -> None:
        """A request that waited is over."""
        if request.error is not None:
            self.refuse_waiting(request, request.error)
        else:
            self.done(self.sessions[request.rank], request.seq)

    def give(self, session: Session, answer: Any) -> None:
        """A request has been met, by an answer of its own."""
        session.answered(answer.seq)
        self.send(session.route, answer)

    def data(self, session: Session, answer: m.Values | m.Chunk) -> None:
        """An answer with data."""
        nbytes = len(answer.data[0])
        session.answered(answer.seq, nbytes)
        self.sent += nbytes
        self.send(session.route, answer)
        if nbytes >= wire.SMALL and self._at_once():
            self.leave()

    def refuse(self, route: bytes, session: Session | None, seq: int, error: Exception, key: Key | None) -> None:
        """A request, or where there is no number a message, can't be met."""
        self.refusals += 1
        error = plain_error(error)
        log.warning("refused a request of %s: %s", f"worker {session.rank}" if session else "a stranger", str(error))
        text = str(error) if str(error).startswith("server") else f"server {self.rank}: {error}"
        key = key if type(key) in (int, str) else None
        refused = m.Refused(seq, type(error).__name__, text[: wire.MAX_TEXT], key)
        if session is not None and seq:
            session.refuse(refused)
        self.send(route, refused)

    def refuse_waiting(self, request: Request, error: Exception) -> None:
        """A request that waited has failed."""
        session = self.sessions[request.rank]
        self.refuse(session.route, session, request.seq, error, request.parts[0].entry.key)
