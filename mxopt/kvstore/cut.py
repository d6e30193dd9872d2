"""Cuts of a worker's program: points that all workers come to with the same pushes behind them."""

from __future__ import annotations

from mxopt.kvstore import messages as m
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.membership import Membership


class Cuts:
    """Makes the cuts of a synchronous store that the scheduler names.

    Cut number n is before the worker's first push for a round higher than n, or as long before as
    it has pushed for round n: workers that push their keys in different orders have one of these
    points in common, if any. Who hears of it too late makes none.
    """

    def __init__(self, connections: Connections, member: Membership) -> None:
        self._connections, self._member = connections, member
        self._made = self._reached = self._round = 0
        member.beat.round = 0

    def before(self, round: int) -> None:
        """The worker is about to push for a round."""
        pulse = self._member.pulse
        if pulse is not None and self._made < pulse.cut:
            if pulse.cut < round:
                self._made = pulse.cut
                if self._round <= pulse.cut:
                    self._tell(pulse, reached=False)
            elif pulse.cut == self._round > self._reached:
                self._reached = pulse.cut
                self._tell(pulse, reached=True)
        if round > self._round:
            self._round = self._member.beat.round = round

    def _tell(self, pulse: m.Pulse, reached: bool) -> None:
        for channel in self._connections.channels:
            self._connections.send(channel.server, m.Cut(0, pulse.cut, pulse.keeps, reached))
