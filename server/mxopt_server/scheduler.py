"""The scheduler: brings the processes of a job together, gives them ranks, keeps barriers, notices
deaths."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

from mxopt.errors import KVStoreError, ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.heart import lapse
from mxopt.kvstore.message import Message
from mxopt.typing import Plain
from mxopt_server.barriers import Barriers
from mxopt_server.checkpoints import Checkpoints
from mxopt_server.latency import Latency
from mxopt_server.roster import Node, Roster
from mxopt_server.standstill import Standstill

log = logging.getLogger("mxopt.scheduler")

Send = Callable[[bytes, Message], bool]  # (whom to, message); whether there is a connection


class Scheduler:
    """The state of one job, moved by messages (`handle`) and time (`tick`, by `clock`).

    `token` draws what a process is known by, `issued` is told every epoch before a process gets it.
    `returns` says that servers which die come back, with what they held; `listens`, whether a
    process of this machine listens at an endpoint.
    """

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
        token: Callable[[], str] = lambda: secrets.token_hex(16),
        issued: Callable[[str, int, int], None] = lambda role, rank, epoch: None,
        returns: bool = False,
        checkpoints: Checkpoints | None = None,
        listens: Callable[[str], bool] = lambda endpoint: False,
    ) -> None:
        self.checkpoints = Checkpoints() if checkpoints is None else checkpoints
        self._cuts: dict[int, list[int]] = {}  # by server: those it can go on from
        self.job, self.returns, self._listens = job, returns, listens
        self.heartbeat, self.dead_after, self.timeout = heartbeat, dead_after, timeout
        self.state, self.text = "gathering", ""
        self.roster = Roster(job, workers, servers, token, issued)
        self.barriers = Barriers()
        self.handling = Latency()  # of messages, as its loop measures them
        self.since = self._ticked = clock()
        self._clock = clock
        self._standstill = Standstill()
        self._asked: dict[tuple[str, int], float] = {}  # when somebody last asked for a place that was taken
        self._send = send
        self._handlers: dict[type, Callable[[bytes, Any], None]] = {
            m.Join: self._join, m.Beat: self._beat, m.Barrier: self._barrier, m.Goodbye: self._goodbye,
            m.Waits: self._waits, m.Gone: self._gone, m.Inquire: self._inquire,
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
        for node in self.roster:
            if asleep > 2 * self.heartbeat:  # this process itself has slept: its silence is no one else's
                node.seen += asleep
                node.moved += asleep
            if node.state == "alive":
                self._feel(node, now)
                if now - node.seen <= self.dead_after:
                    self._watch(node, now)
                elif self.state == "gathering":
                    log.warning("%s went away before the job was complete", node)
                    del self.roster.nodes[node.role, node.rank]
                else:
                    self._lost(node, f"{node} has not been heard of for {self.dead_after:g} s")
            elif node.state == "dead" and node.role == "server" and now - node.seen > self.timeout:
                self.fail(f"{node} has not been heard of for {self.timeout:g} s, and has not come back")
        if self.state == "running" and self.checkpoints.tick(self.roster.wanted["worker"], now):
            self._tell()

    def _lost(self, node: Node, why: str) -> None:
        """A process is dead. Where the job can go on without it, or another comes in its place, its
        place is free."""
        asked = self._clock() - self._asked.get((node.role, node.rank), -math.inf) <= 2 * self.heartbeat
        if self.state == "running" and (self.roster.elastic if node.role == "worker" else self._returns or asked):
            log.warning("%s; its place is free", why)
            node.state = "dead"
            self._left(why)
        else:
            node.state = "ended"
            self.fail(why)

    @property
    def _returns(self) -> bool:
        """Whether servers that die come back."""
        return self.returns or (self.checkpoints.durability == "snapshot" and self.roster.elastic)

    def _left(self, why: str) -> None:
        """A process has gone, and the job goes on: what waited for it needn't any more."""
        if self.state == "running" and not self.roster.alive("worker"):
            if not any(n.state == "ended" for n in self.roster if n.role == "worker"):
                self.fail(why)
                return
            self.state, self.since = "finished", self._clock()
        self._let_pass()
        self._tell()

    def _watch(self, node: Node, now: float) -> None:
        """Looks whether a server that beats still works: its heart beats from another thread than
        its loop."""
        limit = self.timeout if node.doing else self.dead_after
        if self.state == "running" and node.progress >= 0 and now - node.moved > limit:
            doing = f", in {node.doing}" if node.doing else ""
            self._lost(node, f"{node} beats, but its loop has stood still for {limit:g} s{doing}")

    def _feel(self, node: Node, now: float) -> None:
        """Looks whether a worker without beats is there. One whose script holds the interpreter's
        lock can't beat; but while its connection lives, ZeroMQ's own thread has been heard of
        within the last `lapse`."""
        late = node.role == "worker" and node.heart and now - node.seen > 2 * self.heartbeat
        if late and now - node.felt >= self.heartbeat and self._send(node.heart, self._pulse(node)):
            node.felt = now
            node.seen = max(node.seen, now - lapse(self.heartbeat, self.dead_after))

    @property
    def over(self) -> bool:
        """Whether the job has ended, and all its processes know."""
        if self.state not in ("failed", "finished"):
            return False
        return all(n.state != "alive" for n in self.roster) or self._clock() - self.since > self.dead_after

    def fail(self, why: str) -> None:
        """Ends the job: every process is told why."""
        if self.state in ("failed", "finished"):
            return
        why += self.checkpoints.advice
        log.error("the job has failed: %s", why)
        self.state, self.text, self.since = "failed", why[: wire.MAX_TEXT], self._clock()
        for node in self.roster:
            if not node.heart:
                self._refuse(node.route, "JobFailedError", why)
        self._tell()

    # Handlers.

    def _join(self, route: bytes, join: m.Join) -> None:
        wire.check_version(join.version, "the scheduler")
        roster, now = self.roster, self._clock()
        why, node = roster.unfit(join) or self._otherwise_kept(join), roster.joined(join)
        if not why and node is None and self.state in ("failed", "finished"):
            why = f"the job has {self.state}" + (f": {self.text}" if self.text else "")
        if not why and node is None:
            returns = self.state == "running" and (roster.elastic or join.role == "server")
            rank, why = roster.place(join, returns)
            if rank is not None:
                node = roster.admit(join, rank, route, now)
                if join.role == "server":
                    self._cuts[rank], node.local = join.cuts, self._listens(join.endpoint)
                self._tell()
            elif not why:
                self._asked[join.role, join.rank] = now
                held = roster.nodes[join.role, join.rank]
                if held.local and not self._listens(held.endpoint):  # the kernel would know it
                    self._lost(held, f"{held} has exited")
                self._send(route, m.Waiting(f"the place of {held} is taken until that is known to be gone"))
                return
        if why or node is None:
            log.warning("refused %s: %s", join.name, why)
            self._refuse(route, "KVStoreError", why)
            return
        node.route, node.seen = route, now
        if self.state == "gathering" and roster.complete:
            try:
                goes_on = self.checkpoints.goes_on([cuts for _, cuts in sorted(self._cuts.items())])
            except KVStoreError as error:
                self.fail(str(error))
                return
            self.state = "running"
            log.info("job %s is complete: %d workers, %d servers", self.job, *roster.wanted.values())
            for each in roster:
                each.seen, each.goes_on = now, goes_on
                self._welcome(each)
        elif self.state == "gathering":
            self._send(route, m.Waiting(roster.missing()))
        else:
            self._welcome(node)

    def _otherwise_kept(self, join: m.Join) -> str:
        """Why a server's durability isn't the job's; "" where it is."""
        ours = self.checkpoints.durability
        if join.role != "server" or join.durability == ours:
            return ""
        return f"the job's durability is {ours}, that of {join.name} is {join.durability}"

    def _welcome(self, node: Node) -> None:
        wanted, members = self.roster.wanted, self.roster.workers() if node.role == "server" else []
        self._send(
            node.route,
            m.Welcome(self.job, node.rank, node.epoch, node.token, wanted["worker"], wanted["server"],
                      self.roster.endpoints(), float(self.heartbeat), float(self.dead_after), members, node.goes_on),
        )  # fmt: skip

    def _known(self, route: bytes, role: str, message: Any) -> Node | None:
        node = self.roster.known(role, message)
        if node is None:
            text = f"this scheduler's job {self.job} doesn't know the process (any more)"
            self._refuse(route, "JobFailedError", text)
        elif node.state == "dead":  # it was silent for long, and nobody has its place
            log.warning("%s is back", node)
            node.state, node.seen, node.moved = "alive", self._clock(), self._clock()
            self._tell()
        return node

    def _beat(self, route: bytes, beat: m.Beat) -> None:
        node = self._known(route, beat.role, beat)
        if node is not None:
            node.seen, node.heart = self._clock(), route
            if beat.progress >= 0 and (beat.progress, beat.doing) != (node.progress, node.doing):
                node.progress, node.doing, node.moved = beat.progress, beat.doing, node.seen
            if node.role == "worker":
                self.checkpoints.worker(node.rank, beat.round, node.seen)
            else:
                node.lost = max(node.lost, beat.lost)  # one that has come back counts anew, when all workers have told
                self.checkpoints.server(node.rank, beat.cut, beat.written, beat.full, self.roster.wanted["server"])
            self._send(route, self._pulse(node, beat.number))

    def _barrier(self, route: bytes, barrier: m.Barrier) -> None:
        number, barriers = barrier.number, self.barriers
        node = self._known(route, "worker", barrier)
        if node is None:
            return
        if 0 < number <= barriers.last:
            passed = barriers.passed(number)
            if passed is not None:
                self._send(route, passed)
            else:
                text = f"barrier {number} has passed too long ago for a worker to join now"
                self._refuse(route, "KVStoreError", text)
            return
        if self.state == "failed":
            self._refuse(route, "JobFailedError", self.text)
            return
        if number != barriers.last + 1:  # what is kept for barriers is bounded: there is one at a time
            text = f"barrier {number} came, the workers' next is number {barriers.last + 1}"
            self._refuse(route, "ProtocolError", text)
            return
        gone = self.roster.gone()
        if gone and not self.roster.elastic:
            self._refuse(route, "JobFailedError", f"worker {gone[0]} has ended, and can't come to barrier {number}")
            return
        if barrier.rank in barriers.routes:  # it asks again
            absent = set(range(self.roster.wanted["worker"])) - barriers.routes.keys() - set(gone)
            said = f"hasn't come to barrier {number}"
            self._stuck(barrier.rank, ("barrier", number), dict.fromkeys(absent, said))
        barriers.come(barrier.rank, route, barrier.payload)
        self._let_pass()

    def _let_pass(self) -> None:
        """Lets the workers go on that wait in a barrier, where nobody is missing."""
        found = self.barriers.pass_if({node.rank for node in self.roster.alive("worker")})
        if found is not None:
            passed, routes = found
            for route in routes:
                self._send(route, passed)

    def _waits(self, route: bytes, waits: m.Waits) -> None:
        if waits.role == "worker" and self._known(route, "worker", waits) is not None:
            reasons: dict[int, str] = {}
            for rank, key, number in waits.lacks:
                reasons.setdefault(rank, f"hasn't pushed key {key!r} (its push number {number})")
            self._stuck(waits.rank, waits.number, reasons)

    def _stuck(self, rank: int, call: object, reasons: dict[int, str]) -> None:
        why = self._standstill.waits(rank, call, reasons, self._clock())
        if why:
            self.fail(f"no worker can go on: {why}")

    def _gone(self, route: bytes, gone: m.Gone) -> None:
        self._send(route, m.Farewell())
        node = self.roster.nodes.get((gone.role, gone.rank))
        if gone.job != self.job or node is None or node.state != "alive":
            return
        if self.state == "gathering":  # it has no heart yet, and whoever comes in its place hasn't asked
            log.warning("%s has exited before the job was complete", node)
            del self.roster.nodes[gone.role, gone.rank]
        elif self.state == "running" and node.heart and not self._send(node.heart, self._pulse(node)):
            self._lost(node, f"{node} has exited")  # there is no connection to it either

    def _goodbye(self, route: bytes, goodbye: m.Goodbye) -> None:
        node = self._known(route, goodbye.role, goodbye)
        if node is None:
            return
        self._send(route, m.Farewell())
        if node.state == "ended":
            return
        if goodbye.error and self.roster.elastic and node.role == "worker":
            self._lost(node, f"{node} failed: {goodbye.error}")
            return
        node.state = "ended"
        if goodbye.error:
            self.fail(f"{node} failed: {goodbye.error}")
            return
        log.info("%s has ended", node)
        if node.role == "server" and self.state == "running":
            self.fail(f"{node} has ended before the workers")
        if not self.roster.elastic:
            why = f"{node} has ended, and can't come to barrier {self.barriers.last + 1}"
            for each in self.barriers.give_up():
                self._refuse(each, "JobFailedError", why)
        self._left(f"{node} has ended")

    def _inquire(self, route: bytes, inquire: m.Inquire) -> None:
        self._send(route, m.Report(self.report()))

    def report(self) -> Plain:
        """How the job stands, as plain data: to `mxopt-server status`, and as Prometheus
        metrics."""
        now = self._clock()
        nodes = [
            {"role": n.role, "rank": n.rank, "name": n.name, "state": n.state, "endpoint": n.endpoint,
             "age": now - n.seen, "epoch": n.epoch, "lost": n.lost}
            for n in self.roster
        ]  # fmt: skip
        return {
            "role": "scheduler", "job": self.job, "mode": self.roster.mode, "state": self.state, "text": self.text,
            "nodes": nodes, "handling": self.handling.report(),
        }  # fmt: skip

    # Telling.

    def _pulse(self, node: Node, beat: int = 0) -> m.Pulse:
        roster = self.roster
        members = roster.workers() if node.role == "server" else []
        kept = self.checkpoints
        return m.Pulse(self.state, self.text, roster.gone(), roster.endpoints(), members, beat,
                       kept.cut, kept.keeps, kept.exists, roster.lost())  # fmt: skip

    def _tell(self) -> None:
        """Tells all processes at once how the job stands; they would ask at their next beat."""
        for node in self.roster:
            if node.heart and node.state == "alive":
                self._send(node.heart, self._pulse(node))

    def _refuse(self, route: bytes, code: str, text: str) -> None:
        self._send(route, m.Refused(0, code, text[: wire.MAX_TEXT], None))
