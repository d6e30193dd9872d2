"""Scripts that change something in their training, in jobs that are taken up again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from simulation.jobs import Job, Plan
from simulation.network import Weather
from simulation.programs import result

import mxopt

STEPS = 24
PLAN = Plan("", "sync", 2, 2, weather=Weather(0.005), pause=2.0, durability="journal")


def training(store: Any, pause: Callable[[], None], at: Callable[[Any, Any, int], None], **options: Any) -> bytes:
    """Calls `at` with the store, its optimizer and the step before each step; -1 before the first
    that this process makes."""
    optimizer = mxopt.create(**{"name": "sgd", "learning_rate": 1.0, "momentum": 0.5, **options})
    store.set_optimizer(optimizer)
    weight = np.zeros(5, np.float32)
    store.init("w", weight)
    at(store, optimizer, -1)
    for step in range(store.round("w"), STEPS):
        pause()
        at(store, optimizer, step)
        store.pushpull("w", np.full_like(weight, 2.0 ** (step % 3)), out=weight)
    store.barrier()
    return result([weight])


def results(job: Job) -> list[bytes]:
    job.run()
    return [worker.result or repr(worker.error).encode() for worker in job.workers]


def check(program: Callable[..., bytes], again: Callable[..., bytes] | None = None) -> None:
    """Compares the job that is undisturbed with such that die in the middle and are taken up."""
    expected = results(Job(PLAN, program))
    assert expected[0] == expected[1]
    for durability in ("snapshot", "journal"):
        plan = replace(PLAN, durability=durability, death=(36.0, "worker 1"))
        job = Job(plan, program)
        job.run()
        job = Job(replace(plan, death=None), again or program, job.root)
        assert results(job) == expected, durability
        assert max(node.goes_on for node in job.scheduler.roster) > 4


def test_a_rate_that_was_set_once_stays() -> None:
    def at(store: Any, optimizer: Any, step: int) -> None:
        if step == 3:
            optimizer.set_learning_rate(0.25)

    check(partial(training, at=at))


def test_a_rate_that_is_set_later_still_counts() -> None:
    def at(store: Any, optimizer: Any, step: int) -> None:
        if step in (3, 22):
            optimizer.set_learning_rate(0.25 if step == 3 else 0.125)

    check(partial(training, at=at))


def test_states_that_are_loaded_in_a_later_step_are(tmp_path: Path) -> None:
    states = tmp_path / "states"

    def at(store: Any, optimizer: Any, step: int) -> None:
        if step == 2:
            store.barrier()
            if store.rank == 0 and not states.exists():
                store.save_optimizer_states(states)
            store.barrier()
        if step in (4, 22):
            store.load_optimizer_states(states)

    check(partial(training, at=at))


def test_states_that_a_script_begins_with_are_left_alone(tmp_path: Path) -> None:
    def at(store: Any, optimizer: Any, step: int, load: bool) -> None:
        if step == 2 and not load:
            store.barrier()
            if store.rank == 0 and not (tmp_path / "states").exists():
                store.save_optimizer_states(tmp_path / "states")
        if step == -1 and load:
            store.load_optimizer_states(tmp_path / "states")

    check(partial(training, at=partial(at, load=False)), partial(training, at=partial(at, load=True)))


def test_another_rate_than_the_job_began_with_counts_from_then_on() -> None:
    def nothing(store: Any, optimizer: Any, step: int) -> None: ...

    job = Job(replace(PLAN, death=(36.0, "worker 1")), partial(training, at=nothing))
    job.run()
    plan = replace(PLAN, death=None)
    program = partial(training, at=nothing, learning_rate=0.5)
    (weight, _), (before, _) = results(Job(plan, program, job.root)), results(Job(plan, partial(training, at=nothing)))
    assert weight != before


def test_a_seed_that_nobody_gave_is_kept() -> None:
    def drawing(store: Any, pause: Callable[[], None], drawn: int) -> bytes:
        optimizer = mxopt.create("sgld", learning_rate=0.1, seed=drawn + store.rank)
        optimizer.drawn_seed = optimizer.seed  # as if it hadn't been given
        store.set_optimizer(optimizer)
        weight = np.zeros(5, np.float32)
        store.init("w", weight)
        for _ in range(store.round("w"), STEPS):
            pause()
            store.pushpull("w", np.ones_like(weight), out=weight)
        return result([weight])

    check(partial(drawing, drawn=1), partial(drawing, drawn=3))
