"""What is done to a job, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from chaos.program import PROGRAMS
from chaos.relay import Weather


@dataclass
class Fault:
    """A signal to a process of the job; `seconds` after all workers have begun to train."""

    seconds: float
    who: str  # "server 0", "worker 1", "scheduler"
    stopped: float = 0.0  # for how long it is stopped; 0: it is killed

    def __str__(self) -> str:
        done = f"stopped for {self.stopped:.2f} s" if self.stopped else "killed"
        return f"{self.who} {done} at {self.seconds:.2f} s"


@dataclass
class Plan:
    """A job, and what is done to it."""

    seed: int
    program: str
    workers: int
    servers: int
    steps: int = 40
    pause: float = 0.02  # seconds of a worker's own work in a step
    faults: list[Fault] = field(default_factory=list)
    again: list[list[Fault]] = field(default_factory=list)  # the same each time that the job is taken up again
    file_bytes: int = 0  # the largest file that the job's processes can write, as where a disk is full; 0: any
    slow_disk: bool = False
    fsync: bool = False
    weather: Weather | None = None  # of the network; such a job's processes are started by hand, and nobody dies

    def __str__(self) -> str:
        done = [str(fault) for fault in self.faults]
        for faults in self.again:
            done += ["taken up", *(str(fault) for fault in faults)]
        done += ["a full disk"] * bool(self.file_bytes) + ["a slow disk"] * self.slow_disk + ["fsync"] * self.fsync
        if self.weather:
            w = self.weather
            done.append(f"messages up to {w.delay * 1000:.0f} ms late, {w.twice:.0%} twice")
            done += [f"a cut every {w.cut_after:.1f} s"] * bool(w.cut_after)
        return f"{self.program}, {self.workers} x {self.servers}: {', '.join(done) or 'nothing'}"

    @property
    def survives(self) -> bool:
        """Whether the job ends well at once; else it ends with an error, and well when it is taken
        up again."""
        deaths = {fault.who.split()[0] for fault in self.faults if not fault.stopped}
        return not self.file_bytes and deaths <= {"server"}


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed)
    plan = Plan(seed, rng.choice(list(PROGRAMS)), rng.randint(1, 3), rng.randint(1, 3))
    kind = rng.choice(["servers", "servers", "servers", "others", "others", "network", "stops", "disk"])
    plan.fsync, plan.slow_disk = rng.random() < 0.2, rng.random() < 0.1
    if kind == "servers":
        kills = rng.choice([1, 3, 10, 20, 30])
        plan.steps = 40 + 8 * kills
        at = 0.0
        for _ in range(kills):  # each of them is there again for a moment, or about to be
            plan.faults.append(Fault(at, f"server {rng.randrange(plan.servers)}"))
            at += rng.uniform(0.0, 2.5)
    elif kind == "others":
        workers = plan.workers if PROGRAMS[plan.program][0] == "dist_sync" else 0  # others go on without one
        everybody = ["scheduler", *(f"worker {r}" for r in range(workers))]
        starts = []
        for _ in range(rng.choice([1, 3, 6])):
            faults = [Fault(rng.uniform(0, 1), f"server {rng.randrange(plan.servers)}")] * (rng.random() < 0.3)
            starts.append([*faults, Fault(rng.uniform(0, 2.5), rng.choice(everybody))])
        plan.faults, *plan.again = starts
        plan.steps = 40 + 20 * len(starts)
    elif kind == "network":
        plan.steps = 20  # a cut is noticed by its silence, after 3 s
        plan.weather = Weather(rng.choice([0.0, 0.005, 0.03]), rng.choice([0.0, 5.0, 10.0]), rng.choice([0.0, 0.05]))
    elif kind == "stops":
        members = [f"server {r}" for r in range(plan.servers)] + [f"worker {r}" for r in range(plan.workers)]
        plan.faults = [Fault(rng.uniform(0, 1), who, rng.uniform(0.05, 1.0)) for who in rng.sample(members, 2)]
        plan.faults += [Fault(rng.uniform(0, 2), f"server {rng.randrange(plan.servers)}")] * (rng.random() < 0.5)
    else:
        plan.file_bytes = rng.randint(20_000, 400_000)
    for faults in (plan.faults, *plan.again):
        faults.sort(key=lambda fault: fault.seconds)
    return plan
