"""Cuts: points between two steps of the workers' program, which all workers reach after the same
pushes."""

from __future__ import annotations

import logging

from mxopt.kvstore import messages as m
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.membership import Membership

log: logging.Logger = logging.getLogger("mxopt.kvstore")

NO_END = (
    "where a step ends can't be told, so there is no checkpoint here: after its pushes for round %d this worker has"
    " pushed keys that have had fewer. Where not all keys are pushed in each step, count the steps: store.step = 1, 2,"
    " ..."
)


class Cuts:
    """Makes the cuts of a synchronous store that the scheduler names.

    Cut number n is before the worker's first push in a step after the n-th, counted on from the cut
    that the job has gone on from; where nobody counts steps, before its first push for a round
    higher than n. That is where a step ends, unless keys of lower rounds have been pushed since the
    last push for round n: these may be of the next step, and then no cut is made. Nor is one by who
    hears of it too late.
    """

    def __init__(self, connections: Connections, member: Membership) -> None:
        self._connections, self._member = connections, member
        self._begun = max(0, member.welcome.goes_on)
        self._made = self._round = 0
        self._unsure = self._warned = False  # whether keys of lower rounds came last
        member.beat.round = 0

    def before(self, round: int, step: int) -> None:
        """The worker is about to push for a round, the highest of those of the keys, in a step; 0
        where nobody counts."""
        if step:
            round = self._begun + step
        pulse = self._member.pulse
        if pulse is not None and self._made < pulse.cut < round:
            self._made = pulse.cut
            if self._round <= pulse.cut:
                self._make(pulse)
        self._unsure = not step and round < self._round
        if round > self._round:
            self._round = self._member.beat.round = round

    def _make(self, pulse: m.Pulse) -> None:
        if not self._unsure:
            for channel in self._connections.channels:
                self._connections.send(channel.server, m.Cut(0, pulse.cut, pulse.keeps))
        elif not self._warned:
            self._warned = True
            log.warning(NO_END, self._round)
