"""Which cuts the workers of a synchronous job are asked to make, and which checkpoints exist: the
scheduler's part.

A cut has the number of a round: a worker makes it before its first push for a later one
(`mxopt.kvstore.cut`). How far ahead it is named depends on how fast the workers are: all must hear
of it in time, and servers say at once when they have made it. One that all workers are past and a
server hasn't is dropped, and the next is named at once, twice as far ahead, from where later ones
come nearer again; one that the workers have become too slow for is named anew, nearer.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

from mxopt.errors import KVStoreError, counted
from mxopt.kvstore.wire import LARGEST

log = logging.getLogger("mxopt.scheduler")

Notes = MutableMapping[Any, Any]
CUT_S = 1.0  # seconds from one cut to the next, at least, where they go into journals
BEATS = 1  # heartbeats that a cut is ahead at first,
MOST_BEATS = 24  # and where others were too near
LATE_BEATS = 2  # heartbeats beyond twice that, after which a cut that nobody has reached is too far ahead
SETTLE_BEATS = 4  # heartbeats after which a server that has a cut has said so, from when all workers are past it
PATIENCE_S = 60.0  # how long the servers have to write a checkpoint before another is tried


class Checkpoints:
    """The cuts and checkpoints of a job.

    Parameters
    ----------
    durability : none, snapshot or journal
    every : seconds between checkpoints, for snapshot
    heartbeat : seconds after which the scheduler hears of a process again, and that of it
    notes : what the scheduler keeps: of the job that is resumed, to begin with

    Attributes
    ----------
    cut : the number of the cut that is named now; 0 before the first
    keeps : whether a checkpoint is to be made of it
    exists : the number of the newest checkpoint that all servers have; 0 for none
    """

    def __init__(
        self, durability: str = "none", every: float = 60, heartbeat: float = 1, notes: Notes | None = None
    ) -> None:
        self.durability, self._heartbeat, self._notes = durability, heartbeat, {} if notes is None else notes
        self._every = every if durability == "snapshot" else CUT_S
        self.cut, self.keeps, self.exists = 0, False, int(self._notes.get("checkpoint", 0))
        self._resumes = bool(self._notes.get("sync", False))
        self._named: float | None = None  # when
        self._past: float | None = None  # since when all workers are past it
        self._beats = BEATS
        self._rounds: dict[int, tuple[int, float]] = {}  # by worker: the highest round it has pushed for, and when
        self._rates: dict[int, float] = {}  # rounds a second
        self._made: dict[int, int] = {}  # by server: the newest cut it has
        self._written: dict[int, int] = {}  # by server: the newest checkpoint it has
        self._full: set[int] = set()  # servers whose journals are large

    @property
    def advice(self) -> str:
        """What can be done where the job has failed, once it has trained."""
        if not self._rounds or (not self.exists and self.durability != "journal"):
            return ""
        where = f"checkpoint {self.exists}" if self.durability == "snapshot" else "some seconds before"
        return f"; mxopt-launch --resume goes on from {where}"

    def begins(self, mode: str) -> None:
        """A job begins, or is taken up, whose workers go together in this mode. Raises OSError
        where that can't be written down."""
        if mode == "sync":
            self._notes.setdefault("sync", True)

    def goes_on(self, cuts: Sequence[Sequence[int]]) -> int:
        """The cut from which servers go on that have these in their journals; 0 for none, -1 where
        each goes on from all that it has: a new job, and one that isn't synchronous. Raises
        KVStoreError where a cut that all had isn't there any more."""
        if not self._resumes:
            return -1
        common = set(cuts[0]).intersection(*cuts) if cuts and self.durability == "journal" else set()
        found = max([self.exists, *common])
        if not found and "cut" in self._notes:
            have = "; ".join(f"server {rank} has {counted(len(each), 'cut')}" for rank, each in enumerate(cuts))
            raise KVStoreError(
                f"the servers' journals had cut {self._notes['cut']} in common, and have none now ({have}): give each"
                " server that is started by hand the --rank whose state it had, or bring back what the state folder"
                " has lost; nothing of it has been changed"
            )
        return found

    def worker(self, rank: int, round: int, now: float) -> None:
        """A worker says how far it is; -1 in a job that isn't synchronous."""
        if round <= 0:  # nothing is pushed yet; a resumed worker's first push is of a high round
            return
        before, since = self._rounds.get(rank, (round, now))
        if now > since:
            rate = (round - before) / (now - since)
            self._rates[rank] = max(rate, self._rates.get(rank, 0.0) / 2)  # one that has paused may be fast again
        self._rounds[rank] = round, now

    def server(self, rank: int, cut: int, written: int, full: bool, servers: int) -> None:
        """A server says which cut and which checkpoint it has, and whether its journal is so large
        that it should have another."""
        self._made[rank], self._written[rank] = cut, written
        (self._full.add if full else self._full.discard)(rank)
        if len(self._written) < servers:
            return
        try:
            if self.durability == "journal" and cut and set(self._made.values()) == {cut}:
                self._notes.setdefault("cut", cut)
            if set(self._written.values()) == {written} and self.exists < written:
                self._notes["checkpoint"] = written
                self.exists = written
                log.info("checkpoint %d exists", written)
        except OSError as error:  # a full disk: the one before stays, and this is tried again
            log.error("checkpoint %d can't be written down: %s", written, error)

    def tick(self, workers: int, now: float) -> bool:
        """Time has passed: names the next cut when it is time. Whether it has."""
        if self.durability == "none" or len(self._rates) < workers:
            return False
        if self._named is None:
            self._named = now
        if not self._due(now, now - self._named):
            return False
        self.cut, self._named, self._past = self._next(now), now, None
        self.keeps = self.durability == "snapshot" or bool(self._full)
        return True

    def _next(self, now: float) -> int:
        """The number of a cut that all workers would hear of in time."""
        rate = max(self._rates.values())
        furthest = max(round + int(rate * (now - since)) for round, since in self._rounds.values())
        return min(furthest + 1 + int(rate * self._beats * self._heartbeat), LARGEST)

    def _due(self, now: float, waited: float) -> bool:
        """Whether it is time for the next cut, if the last was named this number of seconds ago."""
        rounds = [round for round, _ in self._rounds.values()]
        if not self.cut:
            return waited >= self._every
        lack = [rank for rank, made in sorted(self._made.items()) if made < self.cut]
        if lack or not self._made:
            if min(rounds) <= self.cut:
                late = waited > (2 * self._beats + LATE_BEATS) * self._heartbeat
                return late and max(rounds) <= self.cut and self._next(now) < self.cut
            if self._past is None:
                self._past = now
            if now - self._past < SETTLE_BEATS * self._heartbeat:
                return False
            log.warning("cut %d is dropped: servers %s haven't heard of it from all workers", self.cut, lack)
            self._beats = min(2 * self._beats, MOST_BEATS)
            return True
        if self.keeps and self.exists < self.cut:
            if waited < self._every + PATIENCE_S:
                return False
            log.warning("checkpoint %d isn't there after %.0f s: servers have %s", self.cut, waited, self._written)
        if waited < self._every:
            return False
        self._beats = max(BEATS, 3 * self._beats // 4)
        return True
