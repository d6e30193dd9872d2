"""Which cuts the workers of a synchronous job are asked to make, and which checkpoints exist: the scheduler's part.

A cut has the number of a round: a worker makes it before its first push for a later one (`mxopt.kvstore.cut`). It is
named far enough ahead for all workers to hear of it in time; one who hears of it too late makes none, and the next is
named when all are past it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import MutableMapping, Sequence
from typing import Any

log = logging.getLogger("mxopt.scheduler")

Notes = MutableMapping[Any, Any]
CUT_S = 1.0  # seconds from one cut to the next, where they go into journals
BEATS = 3  # heartbeats that a cut is ahead
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
        self._rounds: dict[int, tuple[int, float]] = {}  # by worker: the highest round it has pushed for, and when
        self._rates: dict[int, float] = {}  # rounds a second
        self._written: dict[int, int] = {}  # by server: the newest checkpoint it has
        self._full: set[int] = set()  # servers whose journals are large

    @property
    def advice(self) -> str:
        """What can be done where the job has failed."""
        if not self.exists and (self.durability != "journal" or not self._rounds):
            return ""
        where = f"checkpoint {self.exists}" if self.durability == "snapshot" else "the last second"
        return f"; mxopt-launch --resume goes on from {where}"

    def goes_on(self, cuts: Sequence[Sequence[int]]) -> int:
        """The cut from which servers go on that have these in their journals; 0 for none, -1 where each goes on from
        all that it has: a new job, and one that isn't synchronous."""
        if not self._resumes:
            return -1
        common = set(cuts[0]).intersection(*cuts) if cuts and self.durability == "journal" else set()
        return max([self.exists, *common])

    def worker(self, rank: int, round: int, now: float) -> None:
        """A worker says how far it is; -1 in a job that isn't synchronous."""
        if round < 0:
            return
        if not self._rounds:
            self._notes["sync"] = True
        before, since = self._rounds.get(rank, (round, now))
        if now > since:
            self._rates[rank] = max(0.0, (round - before) / (now - since))
        self._rounds[rank] = round, now

    def server(self, rank: int, written: int, full: bool, servers: int) -> None:
        """A server says which checkpoint it has, and whether its journal is so large that it should have another."""
        self._written[rank] = written
        (self._full.add if full else self._full.discard)(rank)
        have = set(self._written.values())
        if len(self._written) == servers and len(have) == 1 and self.exists < written:
            self._notes["checkpoint"] = self.exists = written
            log.info("checkpoint %d exists", written)

    def tick(self, workers: int, now: float) -> None:
        """Time has passed: names the next cut when it is time."""
        if self.durability == "none" or len(self._rounds) < workers:
            return
        if self._named is None:
            self._named = now
        rounds, waited = [round for round, _ in self._rounds.values()], now - self._named
        if waited < self._every or (self.cut and min(rounds) <= self.cut):
            return
        if self.keeps and self.exists < self.cut and waited < self._every + PATIENCE_S:
            return
        ahead = math.ceil(max(self._rates.values(), default=0.0) * BEATS * self._heartbeat)
        self.cut, self._named = max(rounds) + 1 + ahead, now
        self.keeps = self.durability == "snapshot" or bool(self._full)
