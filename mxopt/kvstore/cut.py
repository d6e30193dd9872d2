"""Cuts of a worker's program: points that all workers come to with the same pushes behind them."""

from __future__ import annotations

from mxopt.kvstore import messages as m
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.membership import Membership


class Cuts:
    """Makes the cuts of a synchronous store that the scheduler names.

    Cut number n is before the worker's first push for a round higher than n. Who hears of it too late makes none.
    """

    def __init__(self, connections: Connections, member: Membership) -> None:
        self._connections, self._member = connections, member
        self._made = self._round = 0
        member.beat.round = 0

    def before(self, round: int) -> None:
        """The worker is about to push for a round."""
        pulse = self._member.pulse
        if pulse is not None and self._made < pulse.cut < round:
            self._made = pulse.cut
            if self._round <= pulse.cut:
                for channel in self._connections.channels:
                    self._connections.send(channel.server, m.Cut(0, pulse.cut, pulse.keeps))
        if round > self._round:
            self._round = self._member.beat.round = round
