"""The workers of a server's job, and how they go together."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Members:
    """The workers of the job, and how they go together: what all rounds of a server have in
    common."""

    workers: int
    mode: str = ""  # one of `rounds.MODES`, said by the first worker; "" before
    staleness: int = 0  # of ssp: how many pushes a worker may be ahead of the slowest
    ended: set[int] = field(default_factory=set)
    epochs: dict[int, int] = field(default_factory=dict)  # of each rank, the highest that has been here
    begun: dict[int, int] = field(default_factory=dict)  # epochs of those with whom a job begins, or is taken up
    lost: int = 0  # pushes that were answered, and that snapshots older than they are hadn't, in the whole job
    lossy: bool = False  # whether this server goes on from such a snapshot

    def begins(self, rank: int) -> bool:
        """Whether a worker is here from the beginning, not in a job that others have gone on
        with."""
        return rank in self.begun and self.begun[rank] == self.epochs.get(rank)

    @property
    def apart(self) -> bool:
        """Whether an update is of one worker, not of all together."""
        return self.mode in ("async", "ssp")
