"""Decides which processes of a job are alive: those that are heard of, and whose loops move."""

from __future__ import annotations

import logging

from mxopt.kvstore.heart import lapse
from mxopt_server.course import Course
from mxopt_server.roster import Node

log = logging.getLogger("mxopt.scheduler")


class Lives:
    """Looks after the processes of a job's `course`. A server that is dead has `timeout` seconds to
    come back, and a call that it has announced may take as long."""

    def __init__(self, course: Course, timeout: float) -> None:
        self._course, self._roster, self._timeout = course, course.roster, timeout
        self._ticked = course.clock()

    def tick(self) -> None:
        """Looks for processes that have been silent too long."""
        course, now = self._course, self._course.clock()
        asleep, self._ticked = now - self._ticked, now
        for node in self._roster:
            if asleep > 2 * course.heartbeat:  # this process slept, so silence says nothing
                node.seen += asleep
                node.moved += asleep
            if node.state == "alive":
                self._feel(node, now)
                if now - node.seen <= course.dead_after:
                    self._watch(node, now)
                elif course.state == "gathering":
                    log.warning("%s went away before the job was complete", node)
                    del self._roster.nodes[node.role, node.rank]
                else:
                    course.lost(node, f"{node} has not been heard of for {course.dead_after:g} s")
            elif node.state == "dead" and node.role == "server" and now - node.seen > self._timeout:
                course.fail(f"{node} has not been heard of for {self._timeout:g} s, and has not come back")

    def _watch(self, node: Node, now: float) -> None:
        """Looks whether a server that beats still works: its heart beats from another thread than
        its loop."""
        limit = self._timeout if node.doing else self._course.dead_after
        if self._course.state == "running" and node.progress >= 0 and now - node.moved > limit:
            doing = f", in {node.doing}" if node.doing else ""
            self._course.lost(node, f"{node} beats, but its loop has stood still for {limit:g} s{doing}")

    def _feel(self, node: Node, now: float) -> None:
        """Looks whether a worker without beats is there. One whose script holds the interpreter's
        lock can't beat; but while its connection lives, ZeroMQ's own thread has been heard of
        within the last `lapse`."""
        beat = self._course.heartbeat
        late = node.role == "worker" and node.heart and now - node.seen > 2 * beat
        if late and now - node.felt >= beat and self._course.reaches(node):
            node.felt = now
            node.seen = max(node.seen, now - lapse(beat, self._course.dead_after))
