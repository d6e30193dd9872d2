"""Which workers may talk to a server, and the route of each."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable

from mxopt.errors import KVStoreError, counted
from mxopt.kvstore import messages as m, wire
from mxopt_server import uneven
from mxopt_server.answers import Answers
from mxopt_server.latency import Latency
from mxopt_server.machine import Machine
from mxopt_server.records import Member, Mode
from mxopt_server.rounds import MODES
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")


class Handshakes:
    """The workers of job `job`, as the scheduler says and as they have said Hello to the server of
    `epoch`.

    Attributes
    ----------
    known : the epoch and token of each worker, as the scheduler says
    sessions : of the workers that have said Hello, by their ranks
    routes : the sessions of those that have said Hello, by where their messages come from
    waiting : how long their requests wait for other workers, by `clock`
    """

    def __init__(self, job: str, epoch: int, clock: Callable[[], float], machine: Machine, answers: Answers) -> None:
        self._job, self._epoch, self._clock = job, epoch, clock
        self._machine, self._answers = machine, answers
        self.sessions: dict[int, Session] = {}
        self.known: dict[int, tuple[int, str]] = {}
        self.routes: dict[bytes, Session] = {}
        self.waiting = Latency()

    def hear(self, members: Iterable[tuple[int, int, str]]) -> None:
        """Takes the workers that the scheduler has admitted, (rank, epoch, token). Those that they
        replace are ignored from now on."""
        for rank, epoch, token in members:
            self.known[rank] = (epoch, token)
            session = self.sessions.get(rank)
            if session is not None and session.epoch < epoch:
                self.routes.pop(session.route, None)

    def hello(self, route: bytes, hello: m.Hello) -> None:
        """Answers a worker's Hello: by Ready, or by Waiting while the scheduler hasn't told of it.
        Raises KVStoreError if it may not talk to this server."""
        members, (epoch, token) = self._machine.members, self.known.get(hello.rank, (0, ""))
        self._check(hello)
        if hello.epoch > epoch:
            waits = f"server {self._answers.rank} to hear of worker {hello.rank} from the scheduler"
            self._answers.send(route, m.Waiting(waits))
            return
        if hello.epoch < max(epoch, members.epochs.get(hello.rank, 0)):
            raise KVStoreError(f"worker {hello.rank} has been replaced by another process")
        if not hmac.compare_digest(hello.token.encode(), token.encode()):
            raise KVStoreError(f"this isn't the worker {hello.rank} that the scheduler has let in")
        self._check_mode(hello)
        if not members.mode:
            self._machine.enter(Mode(hello.mode, hello.staleness))
        session = self.sessions.get(hello.rank)
        if session is None or session.epoch != hello.epoch:
            if session is not None:
                self.routes.pop(session.route, None)
            if members.lossy and hello.knows:  # since the snapshot it has come, and pushed what that hasn't
                members.epochs[hello.rank] = hello.epoch
            elif members.epochs.get(hello.rank) != hello.epoch:
                others = self.known.keys() - members.ended - {hello.rank}
                begins = members.begun.get(hello.rank) == hello.epoch  # it counts on from its own pushes
                self._machine.enter(Member(hello.rank, hello.epoch, [] if begins else sorted(others)))
            session = self.sessions[hello.rank] = Session(
                hello.rank, hello.epoch, self._answers, self._clock, self.waiting
            )
            log.info("worker %d is here", hello.rank)
        self.routes.pop(session.route, None)
        session.route, session.seen = route, self._clock()
        session.greeted(hello.read if hello.knows == self._epoch else 0)  # else it has read of one before
        self.routes[route] = session
        session.release()
        self._answers.send(route, m.Ready(self._answers.rank, self._epoch, session.expects, uneven.lacks(session)))

    def _check(self, hello: m.Hello) -> None:
        """Raises if a worker isn't of this job."""
        server, workers = f"server {self._answers.rank}", self._machine.members.workers
        wire.check_version(hello.version, server)
        if hello.job != self._job:
            raise KVStoreError(f"{server} belongs to job {self._job}, the worker to job {hello.job}")
        if hello.workers != workers:
            raise KVStoreError(f"{server} has {counted(workers, 'worker')}, the worker says {hello.workers}")
        if hello.rank >= workers:
            raise KVStoreError(f"{server} has {counted(workers, 'worker')}, and no worker {hello.rank}")

    def _check_mode(self, hello: m.Hello) -> None:
        """Raises KVStoreError if a worker's store is of another kind than the others'."""
        members = self._machine.members
        if hello.mode not in MODES:
            raise KVStoreError(f"there is no mode {hello.mode!r}")
        if members.mode and members.mode != hello.mode:
            raise KVStoreError(f"the job's stores are dist_{members.mode}, worker {hello.rank} has dist_{hello.mode}")
        if members.mode == "ssp" and members.staleness != hello.staleness:
            raise KVStoreError(
                f"MXOPT_KVSTORE_STALENESS is {members.staleness} in this job, and {hello.staleness} for worker"
                f" {hello.rank}: all workers need the same"
            )
