"""A server: takes the workers' messages, one handler each, and answers them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.errors import KVStoreError, ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt_server.answers import Answers, Send
from mxopt_server.applier import Applier
from mxopt_server.latency import Latency
from mxopt_server.report import report
from mxopt_server.rounds import MODES, Members
from mxopt_server.served import Served
from mxopt_server.state_requests import StateRequests
from mxopt_server.value_requests import ValueRequests
from mxopt_server.values import Values
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")


class Server:
    """One server of job `job`, moved by messages; it has no sockets, no clock and no chance of its own.

    Parameters
    ----------
    send : called with a route and a message
    incarnation : text that no other process of the job has
    clock : seconds, for what it reports
    """

    def __init__(
        self, send: Send, job: str, rank: int, workers: int, incarnation: str, clock: Callable[[], float]
    ) -> None:
        self.job, self.rank, self.incarnation, self.clock = job, rank, incarnation, clock
        self.members = Members(workers)
        self.values = Values(self.members)
        self.served = Served(self.values.entries)
        self.applier = Applier(self.served, self.members)
        self.answers = Answers(send, rank)
        self.sessions = self.answers.sessions
        self.fenced: set[str] = set()  # incarnations of workers that others have replaced
        self.started = clock()
        self.received = self.messages = 0
        self.handling, self.waiting = Latency(), Latency()  # of messages; of requests that wait for other workers
        self._routes: dict[bytes, Session] = {}
        self._values = ValueRequests(self.values, self.applier, self.answers)
        self._handlers = self._values.handlers | StateRequests(self.values, self.served, self.answers).handlers

    def handle(self, route: bytes, frames: list[Any]) -> None:
        """Takes one message. Whatever is wrong with it is answered with Refused; the server goes on."""
        seq, message = 0, None
        self.messages += 1
        try:
            message = m.decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                self._unnumbered(route, message)
                return
            session = self._routes.get(route)
            if session is None:
                raise ProtocolError(f"{type(message).__name__} before Hello")
            session.requests += 1
            number = message.seq
            if number > session.expects:
                if session.is_gap(number):
                    log.info("worker %d: request %d came, %d is expected", session.rank, number, session.expects)
                    self.answers.send(route, m.Ready(self.rank, self.incarnation, session.expects))
                return
            seq = number
            if number < session.expects:
                self._again(session, message)
                return
            if not session.may_ask(message.read):
                log.info("worker %d has more without an answer than it may: request %d isn't taken", session.rank, seq)
                return
            session.expects = number + 1
            handler(session, message)
        except Exception as error:
            keys = getattr(message, "keys", None) or [getattr(message, "key", None)]
            self.answers.refuse(route, self._routes.get(route), seq, error, keys[0])

    def set_ended(self, ended: set[int]) -> None:
        """Workers that have ended: who waits for them is told."""
        if ended <= self.members.ended:
            return
        self.members.ended |= ended
        for session in self.sessions.values():
            for request in list(session.waiting.values()):
                lost = self._values.lost(request.rank, request.parts)
                if lost is not None:
                    self.answers.refuse_waiting(request, lost)
        for group in self.values.groups.values():
            group.settle()

    # Messages without a number.

    def _unnumbered(self, route: bytes, message: Any) -> None:
        if isinstance(message, m.Hello):
            self._hello(route, message)
        elif isinstance(message, m.Inquire):
            self.answers.send(route, m.Report(report(self)))
        else:
            raise ProtocolError(f"a server takes no {type(message).__name__}")

    def _hello(self, route: bytes, hello: m.Hello) -> None:
        wire.check_version(hello.version, f"server {self.rank}")
        members = self.members
        if hello.job != self.job:
            raise KVStoreError(f"server {self.rank} belongs to job {self.job}, the worker to job {hello.job}")
        if hello.workers != members.workers or hello.rank >= hello.workers:
            raise KVStoreError(f"server {self.rank} has {members.workers} workers, the worker says {hello.workers}")
        if hello.incarnation in self.fenced:
            raise KVStoreError(f"worker {hello.rank} has been replaced by another process")
        if hello.mode not in MODES:
            raise KVStoreError(f"there is no mode {hello.mode!r}")
        if members.mode and (members.mode, members.staleness) != (hello.mode, hello.staleness):
            raise KVStoreError(f"the job's stores are dist_{members.mode}, worker {hello.rank} has dist_{hello.mode}")
        members.mode, members.staleness = hello.mode, hello.staleness
        session = self.sessions.get(hello.rank)
        if session is None or session.incarnation != hello.incarnation:
            if session is not None:
                self.fenced.add(session.incarnation)
                self._routes.pop(session.route, None)
            session = self.sessions[hello.rank] = Session(hello.rank, hello.incarnation, self.clock, self.waiting)
            log.info("worker %d is here", hello.rank)
        self._routes.pop(session.route, None)
        if session.expects < hello.oldest:
            if session.expects > 1:
                log.warning("worker %d: requests %d to %d are lost", hello.rank, session.expects, hello.oldest - 1)
            session.expects = hello.oldest
        session.route, session.seen = route, self.clock()
        session.greeted(hello.read)
        self._routes[route] = session
        self.answers.send(route, m.Ready(self.rank, self.incarnation, session.expects, self._values.lacks(session)))

    def _again(self, session: Session, message: Any) -> None:
        """A request that was taken before: it is answered again, and not applied again."""
        if message.seq in session.waiting:
            return
        refused = session.refused.get(message.seq)
        if refused is not None:
            self.answers.send(session.route, refused)
        elif isinstance(message, m.Push) and message.answer:
            self._values.pull(session, m.Pull(message.seq, message.keys, message.piece))
        elif isinstance(message, m.Pull | m.PullRows | m.FetchStates):
            self._handlers[type(message)](session, message)
        else:
            self.answers.done(session, message.seq)
