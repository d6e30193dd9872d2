"""Times a job inside a worker."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time, sleep
from typing import Any

SHORTEST = 1e-3  # seconds a sample should take: quicker steps are repeated
MOST_STEPS = 2000
STEADY = 40  # samples after which a job has what it builds, and its arrays where they stay
STILL = 2e-3  # seconds of rest by which one sees that nobody works


@dataclass
class Job:
    """An update that can be repeated.

    `step` is timed, together with `wait`, which returns when all that `step` began is done.
    `prepare` comes before each step and is not timed: it stands for what hands the gradients over.
    """

    step: Callable[[], Any]
    prepare: Callable[[], Any] | None = None
    wait: Callable[[], Any] | None = None
    steps: int = 1  # in a sample

    def sample(self) -> float:
        """Seconds of a step."""
        steps, step = range(self.steps), self.step
        if self.prepare is not None:
            self.prepare()
        start = perf_counter()
        for _ in steps:
            step()
        if self.wait is not None:
            self.wait()
        return (perf_counter() - start) / self.steps

    def warm_up(self) -> None:
        """Lets first calls build what they build, for a second at most, and finds out how many
        steps make a sample."""
        end = perf_counter() + 1
        for _ in range(STEADY):
            self.sample()
            if perf_counter() > end:
                break
        seconds = self.sample()
        if self.prepare is None:
            self.steps = min(MOST_STEPS, max(1, round(SHORTEST / max(seconds, 1e-9))))


def measure(job: Job, seconds: float) -> dict[str, Any]:
    """Samples for some time, one at least, after one that isn't counted: others have used the
    caches since."""
    gc.collect()
    gc.disable()
    try:
        if job.sample() > seconds:
            seconds = 0
        samples: list[float] = []
        before, start = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
        while not samples or perf_counter() - start < seconds:
            samples.append(job.sample())
        after, wall = resource.getrusage(resource.RUSAGE_SELF), perf_counter() - start
    finally:
        gc.enable()
        still()
    return {"samples": samples, "wall": wall, "involuntary": after.ru_nivcsw - before.ru_nivcsw}


def still(within: float = 1.0) -> None:
    """Returns when no thread of this process works any more: those of OpenMP look for work for some
    milliseconds after the last, and would take a core from whoever is measured next."""
    end = perf_counter() + within
    while perf_counter() < end:
        before, start = process_time(), perf_counter()
        sleep(STILL)
        if process_time() - before < 0.1 * (perf_counter() - start):
            return
