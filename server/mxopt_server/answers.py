"""What a server says to its workers, and who still waits to hear it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.errors import KVStoreError, MXOptError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt_server.rounds import Request
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")

Send = Callable[[bytes, Any], object]  # (route, message)


class Answers:
    """The answers of server `rank`, sent by `send`."""

    def __init__(self, send: Send, rank: int) -> None:
        self.send, self.rank = send, rank
        self.sessions: dict[int, Session] = {}  # by the workers' ranks
        self.sent = self.refusals = 0

    def done(self, session: Session, seq: int) -> None:
        """A request has been met."""
        session.answered(seq)
        self.send(session.route, m.Done(seq))

    def done_with(self, request: Request) -> None:
        """A request that waited has been met."""
        self.done(self.sessions[request.rank], request.seq)

    def data(self, session: Session, answer: m.Values | m.Chunk) -> None:
        """An answer with data."""
        nbytes = len(answer.data[0])
        session.answered(answer.seq, nbytes)
        self.sent += nbytes
        self.send(session.route, answer)

    def refuse(self, route: bytes, session: Session | None, seq: int, error: Exception, key: Any) -> None:
        """A request, or where there is no number a message, can't be met."""
        self.refusals += 1
        if not isinstance(error, MXOptError):
            log.error("a message failed", exc_info=error)
            error = KVStoreError(f"{type(error).__name__}: {error}")
        log.warning("refused a request of %s: %s", f"worker {session.rank}" if session else "a stranger", str(error))
        text = str(error) if str(error).startswith("server") else f"server {self.rank}: {error}"
        key = key if type(key) in (int, str) else None
        refused = m.Refused(seq, type(error).__name__, text[: wire.MAX_TEXT], key)
        if session is not None and seq:
            session.refuse(refused)
        self.send(route, refused)

    def refuse_waiting(self, request: Request, error: Exception) -> None:
        """A request that waited can't be met any more."""
        session = self.sessions[request.rank]
        self.refuse(session.route, session, request.seq, error, request.parts[0].entry.key)
