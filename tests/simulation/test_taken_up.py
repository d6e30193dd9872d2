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


def check(program: Callable[..., bytes], again: Callable[..., bytes] | None = None, workers: int = 2) -> None:
    """Compares the job that is undisturbed with such that die in the middle and are taken up."""
    undisturbed = replace(PLAN, workers=workers)
    expected = results(Job(undisturbed, program))
    assert expected[0] == expected[-1]
    for durability in ("snapshot", "journal"):
        plan = replace(undisturbed, durability=durability, death=(36.0, f"worker {workers - 1}"))
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


def test_a_rate_that_is_set_in_each_step_is_that_of_the_step() -> None:
    def cyclic(store: Any, optimizer: Any, step: int) -> None:
        optimizer.set_learning_rate(0.25 if step % 8 in (2, 3) else 1.0)

    def from_the_last(store: Any, optimizer: Any, step: int) -> None:
        if step in (3, 8, 20):
            optimizer.set_learning_rate(optimizer.learning_rate * 0.5)

    check(partial(training, at=cyclic))
    check(partial(training, at=from_the_last))


def test_what_is_set_before_the_first_push_leaves_the_rest_as_it_was() -> None:
    """As a Trainer does, which scales by the size of the batch."""

    def at(store: Any, optimizer: Any, step: int) -> None:
        optimizer.rescale_grad = 0.5
        if step == 3:
            optimizer.set_learning_rate(0.25)

    check(partial(training, at=at))


def test_a_rate_of_a_schedule_counts_from_the_jobs_updates() -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        schedule = mxopt.lr_scheduler.FactorScheduler(3, 0.5, base_lr=1.0)
        optimizer = mxopt.create("sgd", learning_rate=1.0, lr_scheduler=schedule)
        store.set_optimizer(optimizer)
        weights = {"w": np.zeros(5, np.float32), "seldom": np.zeros(3, np.float32)}
        for key, weight in weights.items():
            store.init(key, weight)
        for step in range(store.round("w"), STEPS):
            pause()
            if step == 20:
                schedule.base_lr = 0.75
            keys = ["w", "seldom"] if step % 5 == 1 else ["w"]
            outs = [weights[key] for key in keys]
            store.pushpull(keys, [np.ones_like(out) for out in outs], out=outs)
        return result(list(weights.values()))

    check(program)
    check(program, workers=1)


def test_what_is_saved_after_it_has_gone_on_is_the_job_s(tmp_path: Path) -> None:
    seen: list[tuple[float, int | None]] = []

    def program(store: Any, pause: Callable[[], None], drawn: int) -> bytes:
        optimizer = mxopt.create("sgld", learning_rate=0.1, seed=drawn)
        optimizer.drawn_seed = optimizer.seed
        store.set_optimizer(optimizer)
        weight = np.zeros(5, np.float32)
        store.init("w", weight)
        for step in range(store.round("w"), STEPS):
            pause()
            if step == 3:
                optimizer.set_learning_rate(0.25)
            if step == 22:
                optimizer.set_learning_rate(0.125)
            store.pushpull("w", np.ones_like(weight), out=weight)
        seen.append((optimizer.learning_rate, optimizer.seed))
        return result([weight])

    check(partial(program, drawn=1), partial(program, drawn=3))
    assert set(seen) == {(0.125, 1)}


def test_states_with_an_optimizer_that_a_script_begins_with_are_the_same_event_again(tmp_path: Path) -> None:
    """The load is a call of set_optimizer too, which the script that goes on makes again."""
    fname = tmp_path / "states"
    updater = mxopt.get_updater(mxopt.create("sgd", learning_rate=0.5, momentum=0.5))
    updater("w", np.ones(5, np.float32), np.zeros(5, np.float32))
    fname.write_bytes(updater.get_states(dump_optimizer=True))

    def at(store: Any, optimizer: Any, step: int) -> None:
        if step == -1:
            store.load_optimizer_states(fname)
        if step == 3:
            optimizer.set_learning_rate(0.25)

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
