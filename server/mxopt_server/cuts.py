"""Cuts: moments at which a server holds what the workers' program had at one point, the same on all servers.

A worker that comes to such a point says so to every server, behind all it has pushed so far. When the last worker's
word is here, all rounds before the point are over, and none behind it can be: it lacks that worker's push.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m
from mxopt_server.answers import Answers
from mxopt_server.machine import Machine
from mxopt_server.records import Cut, Record
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")


class Cuts:
    """Gathers the workers' cuts. `keep` is called, at those that ask for it, with the number."""

    def __init__(self, machine: Machine, enter: Callable[[Record], None], answers: Answers) -> None:
        self._machine, self._enter, self._answers = machine, enter, answers
        self.keep: Callable[[int], None] | None = None
        self._number = 0  # of the one that some have come to
        self._came: dict[int, dict[Any, int]] = {}  # by worker: its last push of each group, then
        self.handlers: dict[type, Callable[[Session, Any], None]] = {m.Cut: self.cut}

    def cut(self, session: Session, cut: m.Cut) -> None:
        self._answers.done(session, cut.seq)
        if cut.number < self._number or cut.number <= self._machine.cut:
            return
        if cut.number > self._number:
            if self._came and self._number > self._machine.cut:
                log.warning("cut %d is dropped: only workers %s have come to it", self._number, sorted(self._came))
            self._number, self._came = cut.number, {}
        groups = self._machine.values.groups.items()
        self._came[session.rank] = {keys: group.rounds.counts[session.rank] for keys, group in groups}
        if len(self._came) < self._machine.members.workers:
            return
        first, *others = self._came.values()
        self._came = {}
        if any(other != first for other in others):
            log.warning("cut %d is dropped: the workers haven't pushed the same before it", cut.number)
            return
        if cut.keeps and self.keep is not None:
            self.keep(cut.number)
        self._enter(Cut(cut.number))
