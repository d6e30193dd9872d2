"""Cuts: moments at which a server holds what the workers' program had at one point, the same on all
servers.

A worker that comes to such a point says so to every server, behind all it has pushed so far. When
the last worker's word is here, all rounds before the point are over, and none behind it can be: it
lacks that worker's push.

Workers that push their keys in different orders may come there with different keys behind them. So
a worker says also when it first may have come to the cut, before it goes on with keys that are
behind: what all have pushed then is a point of each one's program too, unless a round behind it is
over by the time the last one's word is here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mxopt.kvstore import messages as m
from mxopt_server.answers import Answers
from mxopt_server.machine import Machine
from mxopt_server.records import Cut
from mxopt_server.worker_session import Session

log = logging.getLogger("mxopt.server")

Point = tuple[int, dict[Any, int]]  # the number of a cut, and a worker's last push of each group there


class Cuts:
    """Gathers the workers' cuts. `keep` is called at those that ask for it, with the number and what
    makes the record of the cut."""

    def __init__(self, machine: Machine, answers: Answers) -> None:
        self._machine, self._answers = machine, answers
        self.keep: Callable[[int, Callable[[], None]], None] | None = None
        self._came: dict[int, Point] = {}  # by worker: the cut that it has come to last,
        self._reached: dict[int, Point] = {}  # or may have come to
        self.handlers: dict[type, Callable[[Session, Any], None]] = {m.Cut: self.cut}

    def cut(self, session: Session, cut: m.Cut) -> None:
        self._answers.done(session, cut.seq)
        if cut.number <= self._machine.cut:
            return
        groups = self._machine.values.groups.items()
        point = cut.number, {keys: group.rounds.counts[session.rank] for keys, group in groups}
        came = self._reached if cut.reached else self._came
        for number in sorted({number for number, _ in came.values() if number < cut.number}):
            behind = [rank for rank, (other, _) in sorted(came.items()) if other == number]
            if came is self._came:
                log.warning("cut %d is dropped: only workers %s have come to it", number, behind)
            for rank in behind:
                del came[rank]
        came[session.rank] = point
        if not self._is_there(cut.number):
            return

        def enter() -> None:
            self._machine.enter(Cut(cut.number))

        if cut.keeps and self.keep is not None:
            self.keep(cut.number, enter)
        else:
            enter()

    def _is_there(self, number: int) -> bool:
        """Whether what is here now is a point of every worker's program, at which cut `number` can
        be."""
        reached, came = (
            {rank: counts for rank, (other, counts) in points.items() if other == number}
            for points in (self._reached, self._came)
        )
        last = list({**reached, **came}.values())
        if not came or len(last) < self._machine.members.workers:
            return False
        if all(counts == last[0] for counts in last):
            return True
        if len(came) < len(last):
            return False  # some will say more
        self._came = {}
        if all(counts.keys() == last[0].keys() for counts in last):
            common = {keys: min(counts[keys] for counts in last) for keys in last[0]}
            first = [reached.get(rank, counts) for rank, counts in came.items()]
            passed = all(counts.get(keys, 0) <= least for counts in first for keys, least in common.items())
            groups = self._machine.values.groups
            if passed and not any(groups[keys].rounds.has(0, least + 1) for keys, least in common.items()):
                return True
        log.warning("cut %d is dropped: the workers haven't pushed the same before it", number)
        return False
