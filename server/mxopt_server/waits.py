"""Workers that wait for each other: in barriers, and for each other's pushes."""

from __future__ import annotations

from mxopt.kvstore import messages as m
from mxopt_server.course import Course, Send
from mxopt_server.standstill import Standstill


class Waits:
    """The handlers of Barrier and Waits."""

    def __init__(self, send: Send, course: Course) -> None:
        self._send, self._course = send, course
        self._roster, self._barriers = course.roster, course.barriers
        self._standstill = Standstill()

    def barrier(self, route: bytes, barrier: m.Barrier) -> None:
        number, barriers, course = barrier.number, self._barriers, self._course
        if course.known(route, "worker", barrier) is None:
            return
        if 0 < number <= barriers.last:
            passed = barriers.passed(number)
            if passed is not None:
                self._send(route, passed)
            else:
                text = f"barrier {number} has passed too long ago for a worker to join now"
                course.refuse(route, "KVStoreError", text)
            return
        if course.state == "failed":
            course.refuse(route, "JobFailedError", course.text)
            return
        if number != barriers.last + 1:  # what is kept for barriers is bounded: there is one at a time
            text = f"barrier {number} came, the workers' next is number {barriers.last + 1}"
            course.refuse(route, "ProtocolError", text)
            return
        gone = self._roster.gone()
        if gone and not self._roster.elastic:
            text = f"worker {gone[0]} has ended, and can't come to barrier {number}"
            course.refuse(route, "JobFailedError", text)
            return
        if barrier.rank in barriers.routes:  # it asks again
            absent = set(range(self._roster.wanted["worker"])) - barriers.routes.keys() - set(gone)
            said = f"hasn't come to barrier {number}"
            self._stuck(barrier.rank, ("barrier", number), dict.fromkeys(absent, said))
        barriers.come(barrier.rank, route, barrier.payload)
        course.let_pass()

    def waits(self, route: bytes, waits: m.Waits) -> None:
        if waits.role == "worker" and self._course.known(route, "worker", waits) is not None:
            reasons: dict[int, str] = {}
            for rank, key, number in waits.lacks:
                reasons.setdefault(rank, f"hasn't pushed key {key!r} (its push number {number})")
            self._stuck(waits.rank, waits.number, reasons)

    def _stuck(self, rank: int, call: object, reasons: dict[int, str]) -> None:
        why = self._standstill.waits(rank, call, reasons, self._course.clock())
        if why:
            self._course.fail(f"no worker can go on: {why}")
