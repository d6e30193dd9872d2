"""Simulated jobs: scheduler, servers and workers in one process, disturbed as a seed says, and what
must hold of each.

What must hold: a job that nobody of dies, but servers that come back with what they have kept, ends
with the bits of an undisturbed one. When somebody dies every worker that hasn't finished gets an
error that names who it was, in time; a synchronous job that has kept something is resumed then, and
ends with the same bits. No call lasts longer than its deadline, and nothing stands still.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from mxopt_server.checkpoints import Checkpoints
from mxopt_server.durability import Durability
from mxopt_server.kept import cuts_of
from mxopt_server.notes import Notes
from mxopt_server.scheduler import Scheduler
from mxopt_server.server import Server
from simulation.disk import MOMENTS, Died, Disk
from simulation.network import Network, Router, Transport, Weather
from simulation.programs import BOUND, MODES, PROGRAMS
from simulation.world import Process, World

from mxopt.kvstore import messages as m
from mxopt.kvstore.dist import DistKVStore
from mxopt.kvstore.heart import lapse
from mxopt.kvstore.membership import Finished, Membership
from mxopt.settings import Job as Settings

LIMIT_S = 400.0  # of simulated time, for a whole job
TIMEOUT_S, JOIN_S, DEAD_AFTER_S = 60.0, 60.0, 10.0
NOTICED_S = 20.0  # from a death until everybody knows
TICK_S = 0.5
TOGETHER = "didn't come together"  # in the error of who waits for a process that died before the job began
WAITS = {"init": 2, "broadcast": 3}  # deadlines that a call has one after the other
MEMORY = "/dev/shm"  # where folders are, if there is one: files in memory


@dataclass
class Plan:
    """A job, and what is done to it."""

    program: str
    mode: str
    workers: int
    servers: int
    seed: int = 0
    weather: Weather = field(default_factory=Weather)
    pause: float = 0.1  # mean seconds of a worker's own work in a step
    death: tuple[float, str] | None = None  # when, who
    stop: tuple[float, str, float] | None = None  # when, who, for how long; too short to count as a death
    hold: tuple[float, str, float] | None = None  # the same of a worker whose script holds the interpreter's lock
    crashes: dict[int, tuple[int, str, float]] = field(default_factory=dict)  # of servers, see `Disk`, which are
    # started again after this number of seconds
    again: int = 0  # how often each of them dies once more; a launcher tells of it
    durability: str = "none"
    fsync: bool = False
    every: float = 1.0  # seconds between checkpoints, for snapshot

    @property
    def members(self) -> list[str]:
        return [f"worker {r}" for r in range(self.workers)] + [f"server {r}" for r in range(self.servers)]


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed)
    program = rng.choice(list(PROGRAMS))
    plan = Plan(program, rng.choice(MODES.get(program, ["sync"])), rng.randint(1, 3), rng.randint(1, 2), seed)
    delay, cuts, stalls = rng.choice([0.0005, 0.005, 0.1]), rng.choice([0, 0, 0.5, 5.0]), rng.choice([0, 0, 0.02])
    plan.weather = Weather(delay, max(cuts, 30 * delay) if cuts else 0, stalls)
    plan.pause = rng.choice([0.0, 0.05, 2.0])
    if rng.random() < 0.4:
        plan.death = (rng.uniform(0, 5 + 5 * plan.pause), rng.choice([*plan.members, "the scheduler"]))
    if rng.random() < 0.3:
        plan.stop = (rng.uniform(0, 5), rng.choice(plan.members), rng.uniform(0.1, 4))
    elif rng.random() < 0.1:
        plan.hold = (rng.uniform(0, 5), f"worker {rng.randrange(plan.workers)}", rng.uniform(5, 40))
    if rng.random() < 0.4 and (plan.death is None or "worker" in plan.death[1]):
        plan.durability, plan.fsync = "journal", rng.random() < 0.5
        for rank in range(plan.servers):
            moment = rng.choice([*MOMENTS, "power"] if plan.fsync else MOMENTS)
            plan.crashes[rank] = (rng.randint(0, 40), moment, rng.uniform(0.01, 5))
        plan.again = rng.choice([0, 0, 1, 3])
    elif plan.death is None or "server" not in plan.death[1]:
        plan.durability = rng.choice(["none", "snapshot", "journal"])
    elif plan.mode == "sync":
        plan.durability = rng.choice(["none", "snapshot"])
    return plan


class Root:
    """The folder in which a job keeps its state, in memory where there is such a place. It is gone
    with its last owner."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(dir=MEMORY if os.path.isdir(MEMORY) else None))
        weakref.finalize(self, shutil.rmtree, self.path)


class Job:
    """A plan, carried out; with the `root` of another it is taken up again."""

    def __init__(self, plan: Plan, program: Callable[..., Any] | None = None, root: Root | None = None) -> None:
        self.plan, self.world = plan, World()
        if root is None and plan.durability != "none":
            root = Root()
        self.root = root
        self.durability = Durability(plan.durability, root.path if root else None, plan.every, plan.fsync)
        self.network = Network(self.world, random.Random(plan.seed), plan.weather)
        self.program = program or PROGRAMS[plan.program]
        self.slow: list[str] = []  # calls that have lasted too long
        self.standing: list[str] = []  # who hadn't ended when the time was up
        self.noticed: dict[str, tuple[float, float]] = {}  # of workers with an error: when the call began, and ended
        self.scheduler_process = Process(self.world, "the scheduler", lambda process: None)
        notes: Any = {} if self.durability.root is None else Notes(self.durability.root / "scheduler")
        self.scheduler = Scheduler(self._send_of("scheduler"), plan.workers, plan.servers, "job", 1.0, DEAD_AFTER_S,
                                   lambda: self.world.now, token=lambda: f"token {self.network.name()!r}",
                                   issued=lambda role, rank, epoch: notes.__setitem__((role, rank), epoch),
                                   returns=plan.durability == "journal",
                                   checkpoints=Checkpoints(plan.durability, plan.every, 1.0, notes))  # fmt: skip
        self.scheduler.roster.epochs.update(
            {place: epoch for place, epoch in notes.items() if isinstance(place, tuple)}
        )
        self.network.routers["tcp://here:1"] = Router(
            self.scheduler_process, self.scheduler.handle, lapse(1.0, DEAD_AFTER_S)
        )
        crashes = {rank: crash[:2] for rank, crash in plan.crashes.items()}
        self.disks = [
            Disk(self.durability, r, crashes.get(r), random.Random(plan.seed * 7 + r), plan.again)
            for r in range(plan.servers)
        ]
        self.starts = 0
        self.own: dict[tuple[str, int], dict[str, Any]] = {}  # settings in which a member differs from the others
        self.servers = [Process(self.world, f"server {r}", self._server(r)) for r in range(plan.servers)]
        self.workers = [Process(self.world, f"worker {r}", self._worker(r)) for r in range(plan.workers)]

    def run(self) -> None:
        """Until all have ended, or the time is up."""
        world, plan = self.world, self.plan
        processes = {p.name: p for p in (*self.servers, *self.workers, self.scheduler_process)}
        for process in (*self.servers, *self.workers):
            process.start()
        if plan.death is not None:
            world.at(plan.death[0], partial(self._kill, processes[plan.death[1]]))
        if plan.stop is not None:
            when, name, seconds = plan.stop
            world.at(when, partial(processes[name].stop, seconds))
        if plan.hold is not None:
            world.at(plan.hold[0], partial(self._hold, processes[plan.hold[1]], plan.hold[2]))
        self._tick()
        world.run(lambda: all(p.ended for p in (*self.servers, *self.workers)), LIMIT_S)
        waited = (*self.servers, *self.workers)
        self.standing = [process.name for process in waited if not process.ended]
        for process in waited:
            process.kill()
        for disk in self.disks:
            disk.close()

    def resumed(self) -> Job:
        """The job taken up again, where nothing happens to it."""
        calm = replace(self.plan, death=None, stop=None, hold=None, crashes={})
        return Job(calm, self.program, self.root)

    def faults(self) -> list[str]:
        """What doesn't hold."""
        found, plan, death = list(self.slow), self.plan, self.plan.death
        died = death is not None and next(
            (p for p in (*self.servers, *self.workers, self.scheduler_process) if p.name == death[1] and p.dead), None
        )
        if self.standing:
            found.append(f"{', '.join(self.standing)} stood still")
        for worker in self.workers:
            if worker is died or (died and "worker" in died.name and plan.mode != "sync" and worker.error is None):
                continue  # in async and ssp the others go on
            if worker.error is None:
                if worker.result != undisturbed(plan.program, plan.mode, plan.workers, plan.servers):
                    found.append(f"{worker.name} has other weights")
            elif not died:
                found.append(f"{worker.name}: {type(worker.error).__name__}: {worker.error}")
            elif death is not None and death[1] not in str(worker.error) and TOGETHER not in str(worker.error):
                found.append(f"{worker.name}'s error doesn't name {death[1]}: {worker.error}")
            elif death is not None:
                began, noticed = self.noticed[worker.name]
                limit = JOIN_S + 1 if TOGETHER in str(worker.error) else NOTICED_S + (plan.hold[2] if plan.hold else 0)
                if noticed - max(began, death[0]) > limit:
                    found.append(f"{worker.name} noticed {death[1]} after {noticed - death[0]:.1f} s")
        if died and plan.mode == "sync" and plan.durability != "none" and not found:
            again = self.resumed()
            again.run()
            found = [f"taken up again: {fault}" for fault in again.faults()]
        return found

    # The processes.

    def _send_of(self, name: str) -> Callable[[bytes, Any], bool]:
        endpoint = "tcp://here:1" if name == "scheduler" else name
        return lambda route, message: self.network.routers[endpoint].send(route, m.encode(message))

    def _settings(self, role: str, rank: int) -> Settings:
        of_all = Settings(
            role=role, host="here", port=1, workers=0, servers=0, rank=rank, advertised="", job="", timeout=TIMEOUT_S,
            join_timeout=JOIN_S, heartbeat=1.0, dead_after=DEAD_AFTER_S, staleness=2, keys="", bound=BOUND,
        )  # fmt: skip
        return replace(of_all, **self.own.get((role, rank), {}))

    def _tick(self) -> None:
        if not self.scheduler_process.dead:
            self.scheduler.tick()
            self.world.at(self.world.now + TICK_S, self._tick)

    def _hold(self, process: Process, seconds: float) -> None:
        """Takes the interpreter's lock for this time, once the scheduler has heard its heart."""
        node = self.scheduler.roster.nodes.get(("worker", self.workers.index(process)))
        if node is not None and node.heart:
            process.stop(seconds, held=True)
        elif not process.ended:
            self.world.at(self.world.now + 0.1, lambda: self._hold(process, seconds))

    def _kill(self, process: Process) -> None:
        if not process.ended:
            process.kill()

    def _server(self, rank: int) -> Callable[[Process], None]:
        def main(process: Process) -> None:
            self.starts += 1
            endpoint, disk, durability = f"ipc://server-{rank}-{self.starts}", self.disks[rank], self.durability
            inbox: deque[tuple[bytes, Any]] = deque()

            def take(route: bytes, frames: Any) -> None:
                inbox.append((route, frames))
                process.wake()

            self.network.routers[endpoint] = Router(process, take)
            transport = Transport(self.network, process)
            try:
                member = Membership(
                    transport, self._settings("server", rank), "server", process.name, endpoint, rank, None, "",
                    durability.kind, cuts_of(durability, rank),
                )  # fmt: skip
            except Finished:
                return
            workers, clock = member.welcome.workers, lambda: self.world.now
            try:
                kept, journal = disk.open(member.epoch, member.welcome.goes_on, process)
                server = Server(
                    self._send_of(endpoint), member.job, member.rank, workers, member.epoch, clock,
                    journal if durability.kind == "journal" or rank in self.plan.crashes else None, member.leased,
                )  # fmt: skip
                server.handshakes.hear(member.members)
                if member.welcome.goes_on == -1:
                    server.members.begun = {rank: epoch for rank, epoch, _ in member.members}
                if kept is not None:
                    kept.restore(server)
                    kept.check_alone()
                while True:
                    while inbox:
                        server.handle(*inbox.popleft())
                    server.answers.flush()
                    member.check()
                    pulse, beat = member.pulse, member.beat
                    if pulse is not None:
                        server.handshakes.hear(pulse.members)
                        server.set_ended(set(pulse.ended))
                        if pulse.state == "finished":
                            break
                    beat.lost = server.members.lost
                    if kept is not None:
                        kept.tick(0 if pulse is None else pulse.exists)
                        beat.written, beat.full = kept.written, kept.full
                        member.reach_cut(server.machine.cut)
                    process.sleep(TICK_S)
            except Died:
                process.dead = True
                self.world.at(self.world.now + self.plan.crashes[rank][2], lambda: self._start_again(rank))
                raise
            except Exception as error:
                member.leave(str(error))
                raise
            member.leave()

        return main

    def _start_again(self, rank: int) -> None:
        if self.plan.again and not self.scheduler_process.dead:
            self.scheduler.handle(b"the launcher", m.encode(m.Gone("job", "server", rank)))
        self.servers[rank] = Process(self.world, f"server {rank}", self._server(rank))
        self.servers[rank].start()

    def _worker(self, rank: int) -> Callable[[Process], bytes]:
        def main(process: Process) -> bytes:
            pauses = random.Random(self.plan.seed * 31 + rank)

            def pause() -> None:
                until = self.world.now + pauses.expovariate(1 / self.plan.pause) if self.plan.pause else 0
                while self.world.now < until:
                    process.sleep(until - self.world.now)

            store, began = None, self.world.now
            try:
                transport = Transport(self.network, process)
                store = DistKVStore(f"dist_{self.plan.mode}", transport, self._settings("worker", rank))
                timed = Timed(store, self)
                found: bytes = self.program(timed, pause)
                store.close()
            except Exception as error:
                self.noticed[process.name] = (began if store is None else timed.began, self.world.now)
                if store is not None:
                    transport.exit(f"{type(error).__name__}: {error}")
                raise
            return found

        return main


class Timed:
    """A store whose calls are timed."""

    def __init__(self, store: DistKVStore, job: Job) -> None:
        self._store, self._job, self.began = store, job, job.world.now

    @property
    def step(self) -> int:
        return self._store.step

    @step.setter
    def step(self, step: int) -> None:
        self._store.step = step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            world = self._job.world
            self.began = began = world.now
            try:
                return found(*args, **kwargs)
            finally:
                stopped = sum(asleep[2] for asleep in (self._job.plan.stop, self._job.plan.hold) if asleep)
                if world.now - began > WAITS.get(name, 1) * TIMEOUT_S + stopped + 1:
                    self._job.slow.append(f"{name} took {world.now - began:.1f} s")

        return call


@cache
def undisturbed(program: str, mode: str, workers: int, servers: int) -> bytes:
    """The weights of a job that nothing happens to."""
    job = Job(Plan(program, mode, workers, servers))
    job.run()
    for process in (*job.workers, *job.servers):
        if process.error is not None:
            raise process.error
    results: set[bytes] = {worker.result for worker in job.workers}
    assert len(results) == 1, "the workers of an undisturbed job have different weights"
    return results.pop()
