"""The members of a job: the places of its workers and servers, and the processes that hold them, by
epochs and tokens."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mxopt.errors import counted
from mxopt.kvstore import messages as m

log = logging.getLogger("mxopt.scheduler")

Place = tuple[str, int]  # role, rank


@dataclass
class Node:
    """A process of the job."""

    role: str
    rank: int
    epoch: int
    token: str
    nonce: str
    name: str
    endpoint: str
    route: bytes
    seen: float
    state: str = "alive"  # alive, ended, dead
    heart: bytes = b""  # where its beats come from
    felt: float = 0.0  # when its connection was last seen to live
    progress: int = -1  # of a server's loop, at its last beat,
    doing: str = ""  # what it had called then,
    moved: float = 0.0  # and since when that is so
    local: bool = False  # of a server: whether it is of the scheduler's machine
    goes_on: int = -2  # of a server: the cut that it begins with, see Welcome
    lost: int = 0  # of a server: pushes that it, and those before it in this place, had answered, and then haven't

    def __str__(self) -> str:
        return f"{self.role} {self.rank} ({self.name})"


class Roster:
    """The places of job `job`, for this number of workers and of servers.

    Every process that gets a place has an epoch that is higher than those of all before it in this
    place, and a token by which the others know it. `token` draws one; `issued` is told (role, rank,
    epoch) before a process is let in.

    Attributes
    ----------
    nodes : dict
        The process that has each place, or had it last.
    epochs : dict
        The highest epoch of each place so far.
    mode : str
        That of the workers' stores, as the first has said; "" before.
    """

    def __init__(
        self, job: str, workers: int, servers: int, token: Callable[[], str], issued: Callable[[str, int, int], None]
    ) -> None:
        self.job, self.wanted = job, {"worker": workers, "server": servers}
        self.nodes: dict[Place, Node] = {}
        self.epochs: dict[Place, int] = {}
        self.mode = ""
        self._token, self._issued = token, issued

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self.nodes.values()))

    @property
    def complete(self) -> bool:
        """Whether every place is taken."""
        return len(self.nodes) == sum(self.wanted.values())

    @property
    def elastic(self) -> bool:
        """Whether workers may come and go: no update waits for all of them."""
        return self.mode in ("async", "ssp")

    def alive(self, role: str) -> list[Node]:
        """The living processes of a role, by rank."""
        return [n for (r, _), n in sorted(self.nodes.items()) if r == role and n.state == "alive"]

    def gone(self) -> list[int]:
        """The ranks of the workers that have ended or died."""
        return sorted(n.rank for n in self.nodes.values() if n.role == "worker" and n.state != "alive")

    def workers(self) -> list[tuple[int, int, str]]:
        """(rank, epoch, token) of the workers, for servers."""
        return [(n.rank, n.epoch, n.token) for n in self.nodes.values() if n.role == "worker"]

    def endpoints(self) -> list[str]:
        """Where workers reach the servers, by rank."""
        return [n.endpoint for (role, _), n in sorted(self.nodes.items()) if role == "server"]

    def lost(self) -> list[int]:
        """How many pushes that they had answered the servers have lost, by rank."""
        return [n.lost for (role, _), n in sorted(self.nodes.items()) if role == "server"]

    def missing(self) -> str:
        """The processes that haven't joined yet, in words."""
        parts = [f"{sum(1 for r, _ in self.nodes if r == role)} of {n} {role}s" for role, n in self.wanted.items()]
        return f"the scheduler has {' and '.join(parts)}"

    def joined(self, join: m.Join) -> Node | None:
        """The process that has joined by this message before."""
        return next((node for node in self.nodes.values() if node.nonce == join.nonce), None)

    def unfit(self, join: m.Join) -> str:
        """Why a process can't be of this job; "" if it can."""
        if join.role not in self.wanted:
            return f"there is no role {join.role!r}"
        if join.job and join.job != self.job:
            return f"this is job {self.job}, {join.name} belongs to job {join.job}"
        if self.joined(join) is not None:
            return ""
        for role, said in (("worker", join.workers), ("server", join.servers)):
            if said and said != self.wanted[role]:
                return f"the job has {counted(self.wanted[role], role)}, {join.name} was told {said}"
        if join.rank >= self.wanted[join.role]:
            return f"rank {join.rank} is too high: the job has {counted(self.wanted[join.role], join.role)}"
        return ""

    def place(self, join: m.Join, returns: bool) -> tuple[int | None, str]:
        """The rank that a process gets. Where there is none now, None and why: "" where the place
        that it wishes for may become free, else what rules it out. `returns`: whether one may come
        after another."""
        places = [join.rank] if join.rank >= 0 else range(self.wanted[join.role])
        held = [self.nodes.get((join.role, rank)) for rank in places]
        for rank, node in zip(places, held, strict=True):
            if node is None or (returns and node.state != "alive"):
                return rank, ""
        if join.rank < 0 or not returns:
            if join.rank >= 0:
                own = "; a process has one distributed store" * (held[0] is not None and held[0].name == join.name)
                return None, f"rank {join.rank} is taken by {held[0]}{own}"
            how = "--rank N or DMLC_SERVER_ID" if join.role == "server" else "DMLC_WORKER_ID"
            return None, (
                f"the job has all its {counted(self.wanted[join.role], join.role)}; one that takes the place of another"
                f" says the rank of that: {how}"
            )
        return None, ""

    def admit(self, join: m.Join, rank: int, route: bytes, now: float) -> Node:
        """Gives a process a place."""
        place = join.role, rank
        epoch = self.epochs.get(place, 0) + 1
        self._issued(join.role, rank, epoch)
        self.epochs[place] = epoch
        node = Node(join.role, rank, epoch, self._token(), join.nonce, join.name, join.endpoint, route, now)
        log.info("%s has %s, epoch %d", node, "joined" if place not in self.nodes else "come back", epoch)
        if place in self.nodes:
            node.lost = self.nodes[place].lost
        self.nodes[place] = node
        if join.role == "worker" and join.mode and not self.mode:
            self.mode = join.mode
        return node

    def came_late(self, join: m.Join) -> None:
        """The job has finished, and nobody waits any more for this process in its place."""
        node = self.nodes.get((join.role, join.rank))
        if node is not None and node.state == "dead":
            node.state = "ended"

    def known(self, role: str, message: Any) -> Node | None:
        """The process that a message is of; None if it is of none that has its place now."""
        node = self.nodes.get((role, message.rank))
        if node is None or message.job != self.job:
            return None
        return node if hmac.compare_digest(node.token.encode(), message.token.encode()) else None
