"""How a process joins a job: it asks, waits until all are there, and is welcomed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mxopt.errors import KVStoreError, counted
from mxopt.kvstore import messages as m, wire
from mxopt_server.course import Course, Send
from mxopt_server.roster import Node

log = logging.getLogger("mxopt.scheduler")


class Joins:
    """The handler of Join. `listens` says whether a process of this machine listens at an
    endpoint."""

    def __init__(self, send: Send, course: Course, listens: Callable[[str], bool]) -> None:
        self._send, self._course, self._listens = send, course, listens
        self._roster, self._checkpoints = course.roster, course.checkpoints
        self._cuts: dict[int, list[int]] = {}  # by server: those it can go on from

    def join(self, route: bytes, join: m.Join) -> None:
        wire.check_version(join.version, "the scheduler")
        course, roster = self._course, self._roster
        why, node = roster.unfit(join) or self._otherwise_kept(join), roster.joined(join)
        if not why and node is None and course.state == "finished" and join.role == "server":
            log.info("%s comes back to a job that has finished", join.name)
            roster.came_late(join)
            self._send(route, m.Farewell())
            return
        if not why and node is None and course.state in ("failed", "finished"):
            why = f"the job has {course.state}" + (f": {course.text}" if course.text else "")
        if not why and node is None:
            returns = course.state == "running" and (roster.elastic or join.role == "server")
            rank, why = roster.place(join, returns)
            if rank is not None:
                node = self._admit(route, join, rank)
            elif not why:
                self._wait_for_place(route, join)
                return
        if why or node is None:
            log.warning("refused %s: %s", join.name, why)
            course.refuse(route, "KVStoreError", why)
            return
        node.route, node.seen = route, course.clock()
        if course.state == "gathering" and roster.complete:
            self._begin()
        elif course.state == "gathering":
            self._send(route, m.Waiting(roster.missing()))
        else:
            self._welcome(node)

    def _otherwise_kept(self, join: m.Join) -> str:
        """Why a server's durability doesn't fit the job's; "" if it does."""
        ours = self._checkpoints.durability
        if join.role != "server" or join.durability == ours:
            return ""
        return f"the job's durability is {ours}, that of {join.name} is {join.durability}"

    def _admit(self, route: bytes, join: m.Join, rank: int) -> Node:
        node = self._roster.admit(join, rank, route, self._course.clock())
        if join.role == "server":
            self._cuts[rank], node.local = join.cuts, self._listens(join.endpoint)
        self._course.tell()
        return node

    def _wait_for_place(self, route: bytes, join: m.Join) -> None:
        """Lets a process wait for a place whose holder may be gone."""
        self._course.wished((join.role, join.rank))
        held = self._roster.nodes[join.role, join.rank]
        if held.local and not self._listens(held.endpoint):  # the kernel would know it
            self._course.lost(held, f"{held} has exited")
        self._send(route, m.Waiting(f"the place of {held} is taken until that is known to be gone"))

    def _begin(self) -> None:
        """Starts the job: all processes are there."""
        course, roster = self._course, self._roster
        try:
            goes_on = self._checkpoints.goes_on([cuts for _, cuts in sorted(self._cuts.items())])
            self._checkpoints.begins(roster.mode)
        except (KVStoreError, OSError) as error:
            course.fail(str(error))
            return
        course.state = "running"
        who = ", ".join(counted(n, role) for role, n in roster.wanted.items())
        log.info("job %s is complete: %s, dist_%s", roster.job, who, roster.mode)
        for each in roster:
            each.seen, each.goes_on = course.clock(), goes_on
            self._welcome(each)

    def _welcome(self, node: Node) -> None:
        course, roster = self._course, self._roster
        members = roster.workers() if node.role == "server" else []
        self._send(
            node.route,
            m.Welcome(roster.job, node.rank, node.epoch, node.token, roster.wanted["worker"], roster.wanted["server"],
                      roster.endpoints(), float(course.heartbeat), float(course.dead_after), members, node.goes_on),
        )  # fmt: skip
