"""The state of a job from start to end, and telling its processes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt_server.barriers import Barriers
from mxopt_server.checkpoints import Checkpoints
from mxopt_server.roster import Node, Place, Roster

log = logging.getLogger("mxopt.scheduler")

Send = Callable[[bytes, Message], bool]  # (whom to, message); whether there is a connection


class Course:
    """How the job of a `roster` stands.

    Parameters
    ----------
    heartbeat, dead_after : seconds between beats, and of silence after which a process is dead
    returns : whether servers that die come back, with what they held

    Attributes
    ----------
    state : gathering, running, finished or failed
    text : why it has failed
    since : when it has finished or failed
    """

    def __init__(
        self,
        send: Send,
        roster: Roster,
        barriers: Barriers,
        checkpoints: Checkpoints,
        clock: Callable[[], float],
        heartbeat: float,
        dead_after: float,
        returns: bool,
    ) -> None:
        self.roster, self.barriers, self.checkpoints = roster, barriers, checkpoints
        self.clock, self.heartbeat, self.dead_after = clock, heartbeat, dead_after
        self.state, self.text, self.since = "gathering", "", clock()
        self._send, self._returns = send, returns
        self._asked: dict[Place, float] = {}  # when somebody last asked for a place that was taken

    @property
    def over(self) -> bool:
        """Whether the job has ended and all its processes know."""
        if self.state not in ("failed", "finished"):
            return False
        return not any(map(self._may_speak, self.roster)) or self.clock() - self.since > self.dead_after

    def _may_speak(self, node: Node) -> bool:
        """Whether somebody in this place may not know yet that the job has ended; where a server
        has died, another may be about to come."""
        return node.state == "alive" or (node.state == "dead" and node.role == "server")

    def fail(self, why: str) -> None:
        """Ends the job: every process is told why."""
        if self.state in ("failed", "finished"):
            return
        why += self.checkpoints.advice
        log.error("the job has failed: %s", why)
        self.state, self.text, self.since = "failed", why[: wire.MAX_TEXT], self.clock()
        for node in self.roster:
            if not node.heart:
                self.refuse(node.route, "JobFailedError", why)
        self.tell()

    def wished(self, place: Place) -> None:
        """Notes that a process asks for a place that is taken."""
        self._asked[place] = self.clock()

    def lost(self, node: Node, why: str) -> None:
        """A process is dead. Where the job can go on without it, or another comes in its place, its
        place is free."""
        if self.state == "running" and self._may_go(node):
            log.warning("%s; its place is free", why)
            node.state = "dead"
            self.left(why)
        else:
            node.state = "ended"
            self.fail(why)

    def _may_go(self, node: Node) -> bool:
        """Whether the job goes on without a process that died."""
        if node.role == "worker":
            return self.roster.elastic
        kept = self._returns or (self.checkpoints.durability == "snapshot" and self.roster.elastic)
        asked = self._asked.get((node.role, node.rank), -math.inf)
        return kept or self.clock() - asked <= 2 * self.heartbeat

    def left(self, why: str) -> None:
        """A process has gone, and the job goes on: what waited for it needn't any more."""
        if self.state == "running" and not self.roster.alive("worker"):
            if not any(n.state == "ended" for n in self.roster if n.role == "worker"):
                self.fail(why)
                return
            self.state, self.since = "finished", self.clock()
        self.let_pass()
        self.tell()

    def let_pass(self) -> None:
        """Releases the workers in a barrier if none is missing."""
        found = self.barriers.pass_if({node.rank for node in self.roster.alive("worker")})
        if found is not None:
            passed, routes = found
            for route in routes:
                self._send(route, passed)

    def known(self, route: bytes, role: str, message: Any) -> Node | None:
        """The process that sent a message, which thereby counts as alive. One that has lost its
        place is told so."""
        node = self.roster.known(role, message)
        if node is None:
            text = f"this scheduler's job {self.roster.job} doesn't know the process (any more)"
            self.refuse(route, "JobFailedError", text)
        elif node.state == "dead":  # it was silent for long, and nobody has its place
            log.warning("%s is back", node)
            node.state, node.seen, node.moved = "alive", self.clock(), self.clock()
            self.tell()
        return node

    # Telling.

    def reaches(self, node: Node, beat: int = 0) -> bool:
        """Tells a process that sends beats the state of the job. Returns whether it is
        connected."""
        roster, kept = self.roster, self.checkpoints
        members = roster.workers() if node.role == "server" else []
        pulse = m.Pulse(self.state, self.text, roster.gone(), roster.endpoints(), members, beat,
                        kept.cut, kept.keeps, kept.exists, roster.lost())  # fmt: skip
        return self._send(node.heart, pulse)

    def tell(self) -> None:
        """Tells all processes the state of the job now, not only at their next beat."""
        for node in self.roster:
            if node.heart and node.state == "alive":
                self.reaches(node)

    def refuse(self, route: bytes, code: str, text: str) -> None:
        """Tells a process why its message is refused."""
        self._send(route, m.Refused(0, code, text[: wire.MAX_TEXT], None))
