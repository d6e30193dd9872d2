"""The scheduler: takes the messages of a job's processes, one handler each."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m
from mxopt.typing import Plain
from mxopt_server.barriers import Barriers
from mxopt_server.checkpoints import Checkpoints
from mxopt_server.course import Course, Send
from mxopt_server.joins import Joins
from mxopt_server.latency import Latency
from mxopt_server.lives import Lives
from mxopt_server.roster import Roster
from mxopt_server.waits import Waits

log = logging.getLogger("mxopt.scheduler")


class Scheduler:
    """The scheduler of one job, driven by messages (`handle`) and time (`tick`, by `clock`).

    `token` draws the token of a process; `issued` is called with each epoch before a process gets
    it. `returns` says that dead servers come back with what they held; `listens`, whether a process
    of this machine listens at an endpoint.

    Attributes
    ----------
    course : how the job stands
    roster : who is in it
    """

    def __init__(
        self,
        send: Send,
        workers: int,
        servers: int,
        job: str,
        heartbeat: float = 1,
        dead_after: float = 10,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 600,
        token: Callable[[], str] = lambda: secrets.token_hex(16),
        issued: Callable[[str, int, int], None] = lambda role, rank, epoch: None,
        returns: bool = False,
        checkpoints: Checkpoints | None = None,
        listens: Callable[[str], bool] = lambda endpoint: False,
    ) -> None:
        self._send, self._clock = send, clock
        self.checkpoints = Checkpoints() if checkpoints is None else checkpoints
        self.roster, self.barriers = Roster(job, workers, servers, token, issued), Barriers()
        self.course = Course(send, self.roster, self.barriers, self.checkpoints, clock, heartbeat, dead_after, returns)
        self.handling = Latency()  # of messages, as its loop measures them
        self._lives = Lives(self.course, timeout)
        joins, waits = Joins(send, self.course, listens), Waits(send, self.course)
        self._handlers: dict[type, Callable[[bytes, Any], None]] = {
            m.Join: joins.join, m.Beat: self._beat, m.Barrier: waits.barrier, m.Goodbye: self._goodbye,
            m.Waits: waits.waits, m.Gone: self._gone, m.Inquire: self._inquire,
        }  # fmt: skip

    def handle(self, route: bytes, frames: list[bytes]) -> None:
        """Handles one message."""
        try:
            message = m.decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise ProtocolError(f"a scheduler takes no {type(message).__name__}")
            handler(route, message)
        except ProtocolError as error:
            log.warning("refused a message: %s", error)
            self.course.refuse(route, "ProtocolError", str(error))
        except Exception as error:  # a mistake of this program; the job goes on without this message
            log.exception("a message failed")
            self.course.refuse(route, "KVStoreError", f"the scheduler: {type(error).__name__}: {error}")

    def tick(self) -> None:
        """Looks for dead processes, and whether it is time for the next cut."""
        self._lives.tick()
        if self.course.state == "running" and self.checkpoints.tick(self.roster.wanted["worker"], self._clock()):
            self.course.tell()

    # Handlers.

    def _beat(self, route: bytes, beat: m.Beat) -> None:
        node = self.course.known(route, beat.role, beat)
        if node is not None:
            node.seen, node.heart = self._clock(), route
            if beat.progress >= 0 and (beat.progress, beat.doing) != (node.progress, node.doing):
                node.progress, node.doing, node.moved = beat.progress, beat.doing, node.seen
            if node.role == "worker":
                self.checkpoints.worker(node.rank, beat.round, node.seen)
            else:
                node.lost = max(node.lost, beat.lost)  # one that has come back counts anew, when all workers have told
                self.checkpoints.server(node.rank, beat.cut, beat.written, beat.full, self.roster.wanted["server"])
            self.course.reaches(node, beat.number)

    def _gone(self, route: bytes, gone: m.Gone) -> None:
        self._send(route, m.Farewell())
        node = self.roster.nodes.get((gone.role, gone.rank))
        if gone.job != self.roster.job or node is None or node.state == "ended":
            return
        if gone.why and not (node.heart and self.course.reaches(node)):
            node.state = "ended"
            self.course.fail(f"{node} has ended, and won't come back: {gone.why}")
            return
        if node.state != "alive":
            return
        if self.course.state == "gathering":  # it has no heart yet, and whoever comes in its place hasn't asked
            log.warning("%s has exited before the job was complete", node)
            del self.roster.nodes[gone.role, gone.rank]
        elif self.course.state == "running" and node.heart and not self.course.reaches(node):
            self.course.lost(node, f"{node} has exited")  # there is no connection to it either

    def _goodbye(self, route: bytes, goodbye: m.Goodbye) -> None:
        node = self.course.known(route, goodbye.role, goodbye)
        if node is None:
            return
        self._send(route, m.Farewell())
        if node.state == "ended":
            return
        if goodbye.error and self.roster.elastic and node.role == "worker":
            self.course.lost(node, f"{node} failed: {goodbye.error}")
            return
        node.state = "ended"
        if goodbye.error:
            self.course.fail(f"{node} failed: {goodbye.error}")
            return
        log.info("%s has ended", node)
        if node.role == "server" and self.course.state == "running":
            self.course.fail(f"{node} has ended before the workers")
        if not self.roster.elastic:
            why = f"{node} has ended, and can't come to barrier {self.barriers.last + 1}"
            for each in self.barriers.give_up():
                self.course.refuse(each, "JobFailedError", why)
        self.course.left(f"{node} has ended")

    def _inquire(self, route: bytes, inquire: m.Inquire) -> None:
        self._send(route, m.Report(self.report()))

    def report(self) -> Plain:
        """The state of the job and its members, as plain data."""
        course, roster = self.course, self.roster
        now = course.clock()
        nodes = [
            {"role": n.role, "rank": n.rank, "name": n.name, "state": n.state, "endpoint": n.endpoint,
             "age": now - n.seen, "epoch": n.epoch, "lost": n.lost}
            for n in roster
        ]  # fmt: skip
        return {
            "role": "scheduler", "job": roster.job, "mode": roster.mode, "state": course.state, "text": course.text,
            "nodes": nodes, "handling": self.handling.report(),
        }  # fmt: skip
