"""The workers' barriers. One is open at a time; the payloads that rank 0 gave at passed ones are
kept for workers that come later."""

from __future__ import annotations

from mxopt.kvstore import messages as m, wire

KEPT_BYTES = 64 << 20  # bytes of payloads of barriers that have passed


class Barriers:
    """Which workers have come to which barrier.

    Attributes
    ----------
    last : the number of the last that has passed
    routes : by rank, where the workers are that have come to the next
    """

    def __init__(self) -> None:
        self.last = 0
        self.routes: dict[int, bytes] = {}
        self._payload: object = None
        self._passed: dict[int, m.Passed] = {}
        self._bytes = 0

    def passed(self, number: int) -> m.Passed | None:
        """The answer to a worker that comes to a barrier that has passed; None if it was
        forgotten."""
        return self._passed.get(number)

    def come(self, rank: int, route: bytes, payload: object) -> None:
        """Notes that a worker has come to the next barrier."""
        self.routes[rank] = route
        if rank == 0:
            self._payload = payload

    def pass_if(self, needed: set[int]) -> tuple[m.Passed, list[bytes]] | None:
        """Releases the workers that have come, if all that are `needed` are among them: returns
        what to say, and to whom."""
        if not self.routes or not needed <= self.routes.keys():
            return None
        self.last += 1
        passed, routes = m.Passed(self.last, self._payload), list(self.routes.values())
        self._passed[self.last] = passed
        self._bytes += wire.size_of(m.encode(passed)[0])
        while self._bytes > KEPT_BYTES:
            first = next(iter(self._passed))
            self._bytes -= wire.size_of(m.encode(self._passed.pop(first))[0])
        self.routes, self._payload = {}, None
        return passed, routes

    def give_up(self) -> list[bytes]:
        """Gives up the open barrier; returns the workers that have come, to be told."""
        routes, self.routes = list(self.routes.values()), {}
        return routes
