"""The scheduler: brings the processes of a job together, gives them ranks, keeps barriers, notices deaths."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.heart import lapse
from mxopt_server.latency import Latency
from mxopt_server.standstill import Standstill

log = logging.getLogger("mxopt.scheduler")

Send = Callable[[bytes, Any], bool]  # (whom to, message); whether there is a connection


@dataclass
class Node:
    """A process of the job."""

    role: str
    rank: int
    incarnation: str
    name: str
    endpoint: str
    route: bytes
    seen: float
    state: str = "alive"  # alive, ended
    heart: bytes = b""  # where its beats come from
    felt: float = 0.0  # when its connection was last seen to live
    progress: int = -1  # of a server's loop, at its last beat,
    doing: str = ""  # what it had called then,
    moved: float = 0.0  # and since when that is so

    def __str__(self) -> str:
        return f"{self.role} {self.rank} ({self.name})"


@dataclass
class Gathering:
    """A barrier that some have come to."""

    routes: dict[int, bytes] = field(default_factory=dict)
    payload: Any = None


class Scheduler:
    """The state of one job, moved by messages (`handle`) and time (`tick`, by `clock`)."""

    def __init__(
        self,
        send: Send,
        workers: int,
        servers: int,
        job: str,
        heartbeat: float = 1,
        dead_after: float = 10,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = 600,
    ) -> None:
        self.wanted = {"worker": workers, "server": servers}
        self.job = job
        self.heartbeat, self.dead_after, self.timeout = heartbeat, dead_after, timeout
        self.state, self.text = "gathering", ""
        self.nodes: dict[tuple[str, int], Node] = {}
        self.barriers: dict[int, Gathering] = {}
        self.passed: dict[int, Any] = {}
        self.handling = Latency()  # of messages
        self.since = self._ticked = clock()
        self._clock = clock
        self._standstill = Standstill()
        self._send = send
        self._handlers: dict[type, Callable[[bytes, Any], None]] = {
            m.Join: self._join, m.Beat: self._beat, m.Barrier: self._barrier, m.Goodbye: self._goodbye,
            m.Waits: self._waits,
            m.Inquire: self._inquire,
        }  # fmt: skip

    def handle(self, route: bytes, frames: list[bytes]) -> None:
        """Takes one message."""
        try:
            message = m.decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                raise ProtocolError(f"a scheduler takes no {type(message).__name__}")
            handler(route, message)
        except ProtocolError as error:
            log.warning("refused a message: %s", error)
            self._refuse(route, "ProtocolError", str(error))
        except Exception as error:  # a mistake of this program; the job goes on without this message
            log.exception("a message failed")
            self._refuse(route, "KVStoreError", f"the scheduler: {type(error).__name__}: {error}")

    def tick(self) -> None:
        """Looks who has been silent too long."""
        now = self._clock()
        asleep, self._ticked = now - self._ticked, now
        for key, node in list(self.nodes.items()):
            if asleep > 2 * self.heartbeat:  # this process itself has slept: its silence is no one else's
                node.seen += asleep
                node.moved += asleep
            if node.state != "alive":
                continue
            self._feel(node, now)
            if now - node.seen <= self.dead_after:
                self._watch(node, now)
                continue
            if self.state == "gathering":
                log.warning("%s went away before the job was complete", node)
                del self.nodes[key]
            else:
                node.state = "ended"
                self.fail(f"{node} has not been heard of for {self.dead_after:g} s")

    def _watch(self, node: Node, now: float) -> None:
        """Looks whether a server that beats still works: its heart beats from another thread than its loop."""
        limit = self.timeout if node.doing else self.dead_after
        if self.state == "running" and node.progress >= 0 and now - node.moved > limit:
            node.state = "ended"
            self.fail(
                f"{node} beats, but its loop has stood still for {limit:g} s" + f", in {node.doing}" * bool(node.doing)
            )

    def _feel(self, node: Node, now: float) -> None:
        """Looks whether a worker without beats is there. One whose script holds the interpreter's lock can't beat; but
        while its connection lives, ZeroMQ's own thread has been heard of within the last `lapse`."""
        late = node.role == "worker" and node.heart and now - node.seen > 2 * self.heartbeat
        if late and now - node.felt >= self.heartbeat and self._send(node.heart, self._pulse()):
            node.felt = now
            node.seen = max(node.seen, now - lapse(self.heartbeat, self.dead_after))

    @property
    def over(self) -> bool:
        """Whether the job has ended, and all its processes know."""
        if self.state not in ("failed", "finished"):
            return False
        return all(n.state == "ended" for n in self.nodes.values()) or self._clock() - self.since > self.dead_after

    def fail(self, why: str) -> None:
        """Ends the job: every process is told why."""
        if self.state in ("failed", "finished"):
            return
        log.error("the job has failed: %s", why)
        self.state, self.text, self.since = "failed", why[: wire.MAX_TEXT], self._clock()
        for node in self.nodes.values():
            if not node.heart:
                self._refuse(node.route, "JobFailedError", why)
        self._tell()

    # Handlers.

    def _join(self, route: bytes, join: m.Join) -> None:
        wire.check_version(join.version, "the scheduler")
        why = self._unfit(join)
        if why:
            log.warning("refused %s: %s", join.name, why)
            self._refuse(route, "KVStoreError", why)
            return
        now = self._clock()
        for node in self.nodes.values():
            if node.incarnation == join.incarnation:
                node.route, node.seen = route, now
                break
        else:
            node = self._admit(route, join, now)
        if self.state == "gathering" and len(self.nodes) == sum(self.wanted.values()):
            self.state = "running"
            log.info(
                "job %s is complete: %d workers, %d servers", self.job, self.wanted["worker"], self.wanted["server"]
            )
            for each in self.nodes.values():
                each.seen = now
                self._welcome(each)
        elif self.state == "gathering":
            self._send(route, m.Waiting(self._missing()))
        else:
            self._welcome(node)

    def _unfit(self, join: m.Join) -> str:
        """Why a process can't join; "" where it can."""
        if join.role not in self.wanted:
            return f"there is no role {join.role!r}"
        if join.job and join.job != self.job:
            return f"this is job {self.job}, {join.name} belongs to job {join.job}"
        if any(node.incarnation == join.incarnation for node in self.nodes.values()):
            return ""
        if self.state in ("failed", "finished"):
            return f"the job has {self.state}" + (f": {self.text}" if self.text else "")
        for role, said in (("worker", join.workers), ("server", join.servers)):
            if said and said != self.wanted[role]:
                return f"the job has {self.wanted[role]} {role}s, {join.name} was told {said}"
        if join.rank >= self.wanted[join.role]:
            return f"rank {join.rank} is too high: the job has {self.wanted[join.role]} {join.role}s"
        taken = self.nodes.get((join.role, join.rank))
        if taken is not None and self.state == "gathering":
            return f"rank {join.rank} is taken by {taken}"
        full = all((join.role, rank) in self.nodes for rank in range(self.wanted[join.role]))
        if full and (join.role != "server" or join.rank < 0):
            return f"the job has all its {self.wanted[join.role]} {join.role}s"
        return ""

    def _admit(self, route: bytes, join: m.Join, now: float) -> Node:
        rank = join.rank
        if rank < 0:
            rank = next(r for r in range(self.wanted[join.role]) if (join.role, r) not in self.nodes)
        node = Node(join.role, rank, join.incarnation, join.name, join.endpoint, route, now)
        log.info("%s has %s", node, "joined" if (join.role, rank) not in self.nodes else "come back")
        self.nodes[join.role, rank] = node
        if self.state == "running":
            self._tell()
        return node

    def _welcome(self, node: Node) -> None:
        endpoints = [self.nodes["server", r].endpoint for r in range(self.wanted["server"])]
        self._send(
            node.route,
            m.Welcome(self.job, node.rank, self.wanted["worker"], self.wanted["server"], endpoints,
                      float(self.heartbeat), float(self.dead_after)),
        )  # fmt: skip

    def _missing(self) -> str:
        parts = []
        for role, wanted in self.wanted.items():
            have = sum(1 for r, _ in self.nodes if r == role)
            parts.append(f"{have} of {wanted} {role}s")
        return f"the scheduler has {' and '.join(parts)}"

    def _known(self, route: bytes, message: Any) -> Node | None:
        node = self.nodes.get((message.role, message.rank))
        if message.job != self.job or node is None or node.incarnation != message.incarnation:
            self._refuse(
                route, "JobFailedError", f"this scheduler's job {self.job} doesn't know the process (any more)"
            )
            return None
        return node

    def _beat(self, route: bytes, beat: m.Beat) -> None:
        node = self._known(route, beat)
        if node is not None:
            node.seen, node.heart = self._clock(), route
            if beat.progress >= 0 and (beat.progress, beat.doing) != (node.progress, node.doing):
                node.progress, node.doing, node.moved = beat.progress, beat.doing, node.seen
            self._send(route, self._pulse())

    def _barrier(self, route: bytes, barrier: m.Barrier) -> None:
        number = barrier.number
        if barrier.job != self.job or not 0 <= barrier.rank < self.wanted["worker"]:
            self._refuse(route, "KVStoreError", "a barrier of another job")
            return
        if number in self.passed:
            self._send(route, m.Passed(number, self.passed[number]))
            return
        if self.state == "failed":
            self._refuse(route, "JobFailedError", self.text)
            return
        coming = max(self.passed, default=0) + 1
        if number != coming:  # what is kept for barriers is bounded: there is one at a time
            self._refuse(route, "ProtocolError", f"barrier {number} came, the workers' next is number {coming}")
            return
        ended = self._ended()
        if ended:
            self._refuse(route, "JobFailedError", f"worker {ended[0]} has ended, and can't come to barrier {number}")
            return
        gathering = self.barriers.setdefault(number, Gathering())
        if barrier.rank in gathering.routes:  # it asks again
            absent = set(range(self.wanted["worker"])) - gathering.routes.keys()
            said = f"hasn't come to barrier {number}"
            self._stuck(barrier.rank, ("barrier", number), dict.fromkeys(absent, said))
        gathering.routes[barrier.rank] = route
        if barrier.rank == 0:
            gathering.payload = barrier.payload
        if len(gathering.routes) == self.wanted["worker"]:
            del self.barriers[number]
            self.passed[number] = gathering.payload
            self.passed.pop(number - 2, None)
            for each in gathering.routes.values():
                self._send(each, m.Passed(number, gathering.payload))

    def _waits(self, route: bytes, waits: m.Waits) -> None:
        if self._known(route, waits) is not None and waits.role == "worker":
            reasons: dict[int, str] = {}
            for rank, key, number in waits.lacks:
                reasons.setdefault(rank, f"hasn't pushed key {key!r} (its push number {number})")
            self._stuck(waits.rank, waits.number, reasons)

    def _stuck(self, rank: int, call: Any, reasons: dict[int, str]) -> None:
        why = self._standstill.waits(rank, call, reasons, self._clock())
        if why:
            self.fail(f"no worker can go on: {why}")

    def _goodbye(self, route: bytes, goodbye: m.Goodbye) -> None:
        node = self._known(route, goodbye)
        if node is None:
            return
        self._send(route, m.Farewell())
        if node.state == "ended":
            return
        node.state = "ended"
        if goodbye.error:
            self.fail(f"{node} failed: {goodbye.error}")
            return
        log.info("%s has ended", node)
        alive = [n for n in self.nodes.values() if n.state == "alive"]
        if not any(n.role == "worker" for n in alive) and self.state == "running":
            self.state, self.since = "finished", self._clock()
        elif node.role == "server" and self.state == "running":
            self.fail(f"{node} has ended before the workers")
        for number, gathering in list(self.barriers.items()):
            for each in gathering.routes.values():
                self._refuse(each, "JobFailedError", f"{node} has ended, and can't come to barrier {number}")
            del self.barriers[number]
        self._tell()

    def _inquire(self, route: bytes, inquire: m.Inquire) -> None:
        self._send(route, m.Report(self.report()))

    def report(self) -> dict[str, Any]:
        """How the job stands, as plain data: to `mxopt-server status`, and as Prometheus metrics."""
        now = self._clock()
        nodes = [
            {"role": n.role, "rank": n.rank, "name": n.name, "state": n.state, "endpoint": n.endpoint,
             "age": now - n.seen}
            for n in list(self.nodes.values())
        ]  # fmt: skip
        return {
            "role": "scheduler", "job": self.job, "state": self.state, "text": self.text, "nodes": nodes,
            "handling": self.handling.report(),
        }  # fmt: skip

    # Telling.

    def _ended(self) -> list[int]:
        return sorted(n.rank for n in self.nodes.values() if n.role == "worker" and n.state == "ended")

    def _pulse(self) -> m.Pulse:
        endpoints = [n.endpoint for _, n in sorted(self.nodes.items()) if n.role == "server"]
        return m.Pulse(self.state, self.text, self._ended(), endpoints)

    def _tell(self) -> None:
        """Tells all processes at once how the job stands; they would ask at their next beat."""
        pulse = self._pulse()
        for node in self.nodes.values():
            if node.heart and node.state == "alive":
                self._send(node.heart, pulse)

    def _refuse(self, route: bytes, code: str, text: str) -> None:
        self._send(route, m.Refused(0, code, text[: wire.MAX_TEXT], None))
