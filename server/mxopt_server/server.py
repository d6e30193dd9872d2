"""A server: handles the workers' messages, and answers them."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable
from typing import Any

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore.loans import plain_room
from mxopt.kvstore.wire import Frame
from mxopt.typing import Plain
from mxopt_server import uneven
from mxopt_server.answers import Answers, Room, Send
from mxopt_server.cuts import Cuts
from mxopt_server.first_values import FirstValues
from mxopt_server.handshakes import Handshakes
from mxopt_server.latency import Latency
from mxopt_server.machine import Journal, Machine
from mxopt_server.pulls import Pulls
from mxopt_server.pushes import DEPTH, Pushes
from mxopt_server.state_requests import StateRequests
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")


class Server:
    """One server of job `job`, driven by messages. It has no sockets, reads no clock of its own and
    draws no random numbers.

    A request is checked completely before anything changes. What it changes becomes a record, which
    is appended to the journal and applied. Answers leave once the journal has committed, if the
    server still has its place.

    Parameters
    ----------
    send : called with a route and a message
    epoch : rises with every process that is this server
    clock : seconds, for its report
    journal : where records are kept, if anywhere
    lease : whether this server still has its place; if not, nothing leaves
    room : called with a route and a number of bytes: memory for an answer's data

    Attributes
    ----------
    machine : Machine
        Its state, which only records change.
    """

    def __init__(
        self,
        send: Send,
        job: str,
        rank: int,
        workers: int,
        epoch: int,
        clock: Callable[[], float],
        journal: Journal | None = None,
        lease: Callable[[], bool] = lambda: True,
        room: Room = lambda route, nbytes: plain_room([nbytes])[0],
    ) -> None:
        self.job, self.rank, self.epoch, self.clock = job, rank, epoch, clock
        self.journal = journal
        self.machine = Machine(workers, journal)
        self.members, self.values = self.machine.members, self.machine.values
        self.served, self.applier = self.machine.served, self.machine.applier
        self.answers = Answers(send, rank, self.machine, lease, room)
        self.started = clock()
        self.received = self.messages = 0
        self.handling = Latency()  # of messages
        self.handshakes = Handshakes(job, epoch, clock, self.machine, self.answers)
        self.sessions = self.handshakes.sessions
        depth = DEPTH if journal is None else 0  # with one, Done is a promise: the push is in a round that is over
        self._pulls = Pulls(self.machine, rank)
        self.cuts = Cuts(self.machine)
        pushes = Pushes(self.machine, rank, self._pulls.give, depth)
        firsts, states = FirstValues(self.machine, rank), StateRequests(self.machine)
        self._handlers = pushes.handlers | self._pulls.handlers | firsts.handlers | states.handlers | self.cuts.handlers

    def handle(self, route: bytes, frames: list[Frame]) -> None:
        """Handles one message. Any fault of it is answered with Refused, and the server goes on."""
        self._take(route, frames)
        self.answers.taken()

    def _take(self, route: bytes, frames: list[Frame]) -> None:
        seq, message = 0, None
        self.messages += 1
        try:
            message = m.decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                self._unnumbered(route, message)
                return
            session = self.handshakes.routes.get(route)
            if session is None:
                self.answers.send(route, m.Ready(0, self.epoch, 0))
                return
            session.requests += 1
            number = message.seq
            if number > session.expects:
                if session.is_gap(number):
                    log.info("worker %d: request %d came, %d is expected", session.rank, number, session.expects)
                    self.answers.send(route, m.Ready(self.rank, self.epoch, session.expects))
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
            session = self.handshakes.routes.get(route)
            if session is not None and seq:
                session.refuse(seq, error, keys[0])
            else:
                who = "a stranger" if session is None else f"worker {session.rank}"
                self.answers.send(route, self.answers.refused(who, 0, error, keys[0]))

    def set_ended(self, ended: set[int]) -> None:
        """Takes the workers that are gone and haven't come back; those who wait for them are
        told."""
        if ended == self.members.ended:
            return
        self.members.ended = set(ended)
        for session in self.sessions.values():
            for request in list(session.waiting.values()):
                lost = uneven.lost(request.rank, request.parts)
                if lost is not None:
                    session.refuse(request.seq, lost, request.parts[0].entry.key)
        for group in self.values.groups.values():
            group.settle()
        self.answers.flush()

    def report(self) -> Plain:
        """What the server holds and has done, and its workers, as plain data."""
        values, served, now = self.values, self.served, self.clock()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # A thread that serves metrics calls this too, so dicts are copied before they are read.
        entries, groups = list(values.entries.values()), list(values.groups.values())
        return {
            "role": "server",
            "job": self.job,
            "rank": self.rank,
            "mode": self.members.mode,
            "uptime": now - self.started,
            "keys": len(entries),
            "bytes": sum(e.nbytes for e in entries),
            "groups": len(set(map(id, groups))),
            "pending": sum(len(g.rounds.open) for g in groups),
            "updates": self.applier.updates,
            "messages": self.messages,
            "received": self.received,
            "sent": self.answers.sent,
            "lost": self.members.lost,
            "refused": self.answers.refusals,
            "handling": self.handling.report(),
            "waiting": self.handshakes.waiting.report(),
            "optimizer": repr(served.updater.optimizer) if served.updater else None,
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024,
            "workers": [
                {
                    "rank": w.rank,
                    "age": now - w.seen,
                    "requests": w.requests,
                    "waiting": len(w.waiting),
                    "expects": w.expects,
                }
                for _, w in sorted(self.sessions.items())
            ],
        }

    def _unnumbered(self, route: bytes, message: object) -> None:
        if isinstance(message, m.Hello):
            self.handshakes.hello(route, message)
        elif isinstance(message, m.Inquire):
            self.answers.send(route, m.Report(self.report()))
        else:
            raise ProtocolError(f"a server takes no {type(message).__name__}")

    def _again(self, session: Session, message: Any) -> None:
        """Answers a request that was handled before again, without applying it again."""
        if message.seq in session.waiting:
            return
        refused = session.refused.get(message.seq)
        if refused is not None:
            self.answers.send(session.route, refused)
        elif isinstance(message, m.Push) and message.answer and not message.later:
            self._pulls.pull(session, m.Pull(message.seq, message.keys, message.piece, message.round))
        elif isinstance(message, m.Pull | m.PullRows | m.ListRows | m.FetchStates | m.FetchOptimizer | m.Rounds):
            self._handlers[type(message)](session, message)
        else:
            session.done(message.seq)
