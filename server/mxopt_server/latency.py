"""Durations, counted in classes as in a histogram of Prometheus."""

from __future__ import annotations

from bisect import bisect_left

from mxopt.typing import Plain

BOUNDS = tuple(1e-4 * 4**k for k in range(9))  # seconds: the classes' upper ends, 0.1 ms to 6.6 s; and all above


class Latency:
    """Durations of one kind, in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def report(self) -> Plain:
        """As plain data: how many took at most `bounds` and more than the bound before, and all
        seconds."""
        return {"bounds": list(BOUNDS), "counts": list(self.counts), "seconds": self.seconds}
