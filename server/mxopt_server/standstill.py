"""Detects workers that wait for each other in a circle, so that none can ever go on."""

from __future__ import annotations

from dataclasses import dataclass, field

FRESH_S = 8.0  # a worker that waits says so every three seconds at most
CONFIRMED = 2  # times that all must have said so, once all of them waited


@dataclass
class Wait:
    """A worker's wait: for what, in words, and for whom, as servers have just said again."""

    call: object
    began: float  # when it was first heard of
    reasons: dict[int, str]  # by the worker that is waited for: what it hasn't done
    heard: list[float] = field(default_factory=list)


class Standstill:
    """The workers that wait, each with all that it has sent taken.

    A circle is certain when, after the last of its workers began to wait, each of them has learned
    anew, more than once, that it still waits for another of them: in between, none of them can have
    done what they wait for.
    """

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}

    def waits(self, rank: int, call: object, reasons: dict[int, str], now: float) -> str:
        """A worker waits in `call`. Returns why no worker of a circle can go on; "" where there is
        none."""
        wait = self._waits.get(rank)
        if wait is None or wait.call != call:
            wait = self._waits[rank] = Wait(call, now, reasons)
        wait.reasons = reasons
        wait.heard = [*wait.heard[-3:], now]
        circle = {r: w for r, w in self._waits.items() if now - w.heard[-1] <= FRESH_S}
        while out := [r for r, w in circle.items() if not w.reasons.keys() & circle.keys()]:
            for r in out:
                del circle[r]
        began = max((w.began for w in circle.values()), default=now)
        if not circle or any(sum(t > began for t in w.heard) < CONFIRMED for w in circle.values()):
            return ""
        return "; ".join(
            f"worker {r} waits, as worker {other} {w.reasons[other]}"
            for r, w in sorted(circle.items())
            for other in sorted(w.reasons.keys() & circle.keys())[:1]
        )
