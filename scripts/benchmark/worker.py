"""The worker's side: answers the driver's requests, one line of JSON each, until its input ends.

python -m benchmark.worker SYSTEM
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmark.cases import KINDS, Case, make_case
from benchmark.timing import Job, measure, still

WORSE = 1.3  # times the best: a way that slow in the trial isn't compared any further


class Worker:
    """One system, and the jobs it is at: one way of the case, or several where the system compares
    them all along."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.jobs: dict[str, Job] = {}

    def hello(self) -> dict[str, Any]:
        return {"version": self.system.version(), "python": sys.version.split()[0]}

    def prepare(self, case: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Tries every way to run a case, and keeps the best. Tells the times of all, and the
        errors."""
        wanted, trials, errors = make_case(case), {}, {}
        compared = getattr(self.system, "COMPARED", 1)
        able = not wanted.clipped or getattr(self.system, "CLIPS", False)
        able &= not wanted.every or getattr(self.system, "EVERY", False)
        able &= not KINDS[wanted.kind].narrow or getattr(self.system, "NARROW", False)
        for way in self.system.ways(wanted) if able else []:
            if compared == 1:
                self.drop()  # one at a time: each has arrays of its own
            try:
                self.jobs[way] = job = self._build(wanted, way)
                trials[way] = statistics.median(measure(job, seconds)["samples"])
            except Exception as error:  # a way that doesn't work is reported, the others go on
                errors[way] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        best = sorted(trials, key=trials.__getitem__)
        kept = [way for way in best[:compared] if trials[way] < WORSE * trials[best[0]]]
        self.jobs = {way: self.jobs[way] for way in kept if way in self.jobs}
        for way in kept:
            if way not in self.jobs:
                self.jobs[way] = self._build(wanted, way)
        gc.collect()
        still()
        return {"ways": kept, "trials": trials, "errors": errors}

    def measure(self, seconds: float) -> dict[str, Any]:
        """Samples for some time, of each way that was kept."""
        measured = {way: measure(job, seconds / len(self.jobs)) for way, job in self.jobs.items()}
        return {
            "samples": {way: found["samples"] for way, found in measured.items()},
            "wall": sum(found["wall"] for found in measured.values()),
            "involuntary": sum(found["involuntary"] for found in measured.values()),
        }

    def drop(self) -> dict[str, Any]:
        """Lets the jobs' memory go."""
        self.jobs.clear()
        gc.collect()
        return {}

    def _build(self, case: Case, way: str) -> Job:
        job: Job = self.system.build(case, way)
        job.warm_up()
        return job


def pin() -> None:
    """Keeps to the cores the driver chose, so that every library starts as many threads."""
    cores = os.environ.get("BENCH_CORES")
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores.split(",")))


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    pin()
    worker = Worker(importlib.import_module(f"benchmark.systems.{name}"))
    for line in sys.stdin:
        request = json.loads(line)
        verb: Callable[..., dict[str, Any]] = getattr(worker, request.pop("do"))
        try:
            answer = verb(**request)
        except Exception as error:  # the driver decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
