"""Cuts: moments at which all servers hold the values of the same point of the workers' program.

A worker that comes to such a point says so to every server, behind all it has pushed so far
(`mxopt.kvstore.cut`). When the last worker's word is here, all rounds before the point are over,
and none behind it can be: it lacks that worker's push.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m
from mxopt_server.machine import Machine
from mxopt_server.records import Cut
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")

Point = tuple[int, dict[Any, int]]  # the number of a cut, and a worker's last push of each part there


class Cuts:
    """Gathers the workers' cuts. `keep` is called at those that ask for it, with the number and
    what makes the record of the cut."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.keep: Callable[[int, Callable[[], None]], None] | None = None
        self._came: dict[int, Point] = {}  # by worker: the cut that it has come to last
        self.handlers: dict[type, Callable[[Session, Any], None]] = {m.Cut: self.cut}

    def cut(self, session: Session, cut: m.Cut) -> None:
        session.done(cut.seq)
        if cut.number <= self._machine.cut:
            return
        for number in sorted({number for number, _ in self._came.values() if number < cut.number}):
            behind = [rank for rank, (other, _) in sorted(self._came.items()) if other == number]
            log.warning("cut %d is dropped: only workers %s have come to it", number, behind)
            for rank in behind:
                del self._came[rank]
        self._came[session.rank] = cut.number, {
            (part.entry.key, part.piece): group.rounds.counts[session.rank]
            for group in self._machine.values.groups.values() for part in group.parts
        }  # fmt: skip
        points = [pushed for number, pushed in self._came.values() if number == cut.number]
        if len(points) < self._machine.members.workers:
            return
        self._came = {}
        if any(pushed != points[0] for pushed in points):
            log.warning("cut %d is dropped: the workers haven't pushed the same before it", cut.number)
            return

        def enter() -> None:
            self._machine.enter(Cut(cut.number))

        if cut.keeps and self.keep is not None:
            self.keep(cut.number, enter)
        else:
            enter()
