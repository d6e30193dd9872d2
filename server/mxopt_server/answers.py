"""A server's answers to its workers, and the requests that still wait for one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Frame, Key
from mxopt_server.applier import plain_error
from mxopt_server.contributions import Request
from mxopt_server.entries import Part
from mxopt_server.worker_session import Answer, Session

log = logging.getLogger("mxopt.server")

Send = Callable[[bytes, Message], object]  # (route, message)
Room = Callable[[bytes, int], Frame]  # (route, bytes)


class Answers:
    """The answers of server `rank`: they wait until `leave`, which sends them by `post`. Large ones
    needn't where `at_once` says so: the worker reads them while the next are made. Their data is
    best put into `room`, memory for so many bytes that go by a route."""

    def __init__(self, post: Send, rank: int, at_once: Callable[[], bool], room: Room) -> None:
        self._post, self.rank, self._at_once, self.room = post, rank, at_once, room
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
        """Answers a request that needs no data."""
        if session.waiting:
            session.answered(seq)
        self._waiting.append((session.route, m.Done(seq)))

    def when_seen(
        self,
        session: Session,
        seq: int,
        parts: Sequence[Part],
        number: int,
        nbytes: int,
        answer: Answer,
        pushes: bool = False,
    ) -> None:
        """Answers a request by `answer` when its worker may see its round `number` of `parts`: now,
        or when that is so. One that `pushes` is refused where the round has failed."""
        first = parts[0].group
        if first is not None and first.parts is parts and first.settled(session.rank, number):
            session.needs_no_wait()
            error = first.rounds.error(session.rank, number) if pushes else None
            if error is None:
                answer(session, seq, parts)
            else:
                self.refuse(session.route, session, seq, error, first.entry.key)
            return
        groups = list({id(part.group): part.group for part in parts if part.group is not None}.values())
        request = session.wait(seq, parts, number, nbytes, answer, self._over, pushes)
        request.missing = len(groups) + 1
        for group in groups:
            if group.settled(session.rank, number):
                request.met(group.rounds.error(session.rank, number))
            else:
                group.waiting.append(request)
        request.met()

    def _over(self, request: Request) -> None:
        """A request needs wait no longer."""
        if request.error is not None:
            self.refuse_waiting(request, request.error)
        else:
            request.answer(self.sessions[request.rank], request.seq, request.parts)

    def give(self, session: Session, answer: Any) -> None:
        """Answers a request with this message."""
        session.answered(answer.seq)
        self.send(session.route, answer)

    def data(self, session: Session, answer: m.Values | m.Chunk) -> None:
        """Answers a request with data."""
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
        """Refuses a request that has waited."""
        session = self.sessions[request.rank]
        self.refuse(session.route, session, request.seq, error, request.parts[0].entry.key)
