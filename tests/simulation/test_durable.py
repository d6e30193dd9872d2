"""What simulated jobs keep: checkpoints, journals, what is lost and told, and jobs that are taken
up again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from simulation.disk import MOMENTS
from simulation.jobs import Job, Plan, undisturbed
from simulation.network import Weather
from simulation.programs import PROGRAMS

import mxopt

STEPS = 12


def counting(store: Any, pause: Callable[[], None]) -> bytes:
    """Every push takes off one; returns what a pull sees last."""
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    weight = np.zeros(2, np.float32)
    store.init("w", weight)
    for _ in range(STEPS):
        pause()
        store.push("w", np.ones_like(weight))
    for _ in range(4):
        pause()
        store.barrier()
    store.pull("w", weight)
    return weight.tobytes()


def what_is_lost(job: Job) -> int | None:
    """How many pushes the scheduler says are lost, which are those that the weights lack; None
    where the server had nothing yet when it died."""
    (lost,) = job.scheduler.roster.lost()
    if any(worker.error for worker in job.workers):
        assert all("has not been initialised" in str(worker.error) for worker in job.workers), job.plan.seed
        return None
    for worker in job.workers:
        assert np.frombuffer(worker.result, np.float32).tolist() == [lost - 2.0 * STEPS] * 2, job.plan.seed
    return lost


def numbers_told(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Of lost pushes, that workers have told."""
    told = r"server 0 .* came back from its last checkpoint: (\d+) of the workers' pushes"
    return list(map(int, re.findall(told, caplog.text)))


@pytest.mark.parametrize("mode", ["async", "ssp"])
def test_every_worker_is_told_how_many_pushes_a_server_without_a_journal_has_lost(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    lossy = 0
    for seed in range(20):
        caplog.clear()
        job = Job(Plan("", mode, 2, 1, seed, Weather(0.005), pause=1.0, durability="snapshot", every=2.0), counting)
        death = 5.0 + seed / 4
        job.world.at(death, job.servers[0].kill)
        job.world.at(death + 1, partial(job._start_again, 0))
        job.run()
        lost = what_is_lost(job)
        if lost is None:
            continue
        told = numbers_told(caplog)
        assert sorted(told)[-2:] == ([lost] * 2 if lost else []), seed
        lossy += lost > 0
    assert lossy > 5


def hasty(store: Any, pause: Callable[[], None]) -> bytes:
    """A server dies with its last pushes answered, and worker 0 leaves, which has heard of no
    death."""
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    weight = np.zeros(2, np.float32)
    store.init("w", weight)
    for _ in range(STEPS):
        pause()
        store.push("w", np.ones_like(weight))
    store.pull("w", weight)
    store._job.servers[0].kill()
    store._job.world.at(store._job.world.now + 0.5, lambda: store._job._start_again(0))
    return weight.tobytes()


@pytest.mark.parametrize("mode", ["async", "ssp"])
def test_what_is_lost_after_a_workers_last_request_is_told_before_it_leaves(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    lossy = 0
    for seed in range(10):
        caplog.clear()
        job = Job(Plan("", mode, 1, 1, seed, Weather(0.005), pause=1.0, durability="snapshot", every=2.0), hasty)
        job.run()
        assert [process.error for process in (*job.workers, *job.servers)] == [None, None], seed
        told = numbers_told(caplog)
        assert len(told) <= 1
        assert all(0 < number <= STEPS for number in told), seed
        lossy += len(told)
    assert lossy > 5


def patient(store: Any, pause: Callable[[], None]) -> bytes:
    """The same; it stays for as long as news may take."""
    found, until = counting(store, pause), store._job.world.now + 4.0
    while store._job.world.now < until:
        pause()
    return found


def kill_server(job: Job) -> None:
    job.servers[0].kill()


@pytest.mark.parametrize("mode", ["async", "ssp"])
def test_what_servers_have_lost_that_die_again_at_once_is_counted_once(mode: str) -> None:
    """Also when the first is gone before the scheduler has heard of what it had lost."""
    twice = 0
    for seed in range(30):
        job = Job(Plan("", mode, 2, 1, seed, Weather(0.005), pause=1.0, durability="snapshot", every=2.0), patient)
        death = 5.0 + seed / 8
        again = death + 11.0 + seed / 10  # the place is free ten seconds after a death
        for when in (death, again):
            job.world.at(when, partial(kill_server, job))
            job.world.at(when + 0.1, partial(job._start_again, 0))
        job.run()
        lost = what_is_lost(job)
        if lost is None:
            continue
        twice += lost > 0 and job.starts == 3
    assert twice > 5


def one_comes_late(store: Any, pause: Callable[[], None]) -> bytes:
    """Worker 1 makes its only push long after worker 0 has ended its program."""
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    weight = np.zeros(2, np.float32)
    store.init("w", weight)
    if store.rank:
        until = store._job.world.now + 45.0
        while store._job.world.now < until:
            pause()
    store.push("w", np.ones_like(weight))
    if store.rank:
        store.pull("w", weight)
    return weight.tobytes()


def test_a_worker_that_ends_early_waits_for_its_last_round_as_long_as_for_any_answer() -> None:
    job = Job(Plan("", "sync", 2, 1, 0, pause=1.0, durability="journal"), one_comes_late)
    job.run()
    assert [worker.error for worker in job.workers] == [None, None]
    assert np.frombuffer(job.workers[1].result, np.float32).tolist() == [-2.0, -2.0]


@pytest.mark.parametrize("moment", [*MOMENTS, "power"])
def test_servers_that_die_while_there_are_checkpoints_lose_nothing(moment: str) -> None:
    checkpoints = 0
    for seed in range(10):
        plan = Plan("steady", "sync", 2, 2, seed, Weather(0.005), pause=1.0, durability="journal")
        plan.fsync, plan.crashes = moment == "power", {0: (30 + seed, moment, 0.5), 1: (15 + 2 * seed, moment, 2.0)}
        job = Job(plan)
        job.run()
        assert job.faults() == [], seed
        checkpoints += any(kept.written for disk in job.disks for kept in disk.opened)
    assert checkpoints > 5


def by_key(store: Any, pause: Callable[[], None]) -> bytes:
    """Every push of a worker takes off the same, whichever process makes it; each key goes on where
    it is."""
    shapes = {"small": (5,), "striped": (300,), "large": (3000,)}
    weights = [np.zeros(shape, np.float32) for shape in shapes.values()]
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    store.init(list(shapes), weights)
    begun = {key: store.round(key) for key in shapes}
    for step in range(STEPS):
        pause()
        for key, weight in zip(shapes, weights, strict=True):
            if step >= begun[key]:
                store.push(key, np.full_like(weight, 2.0 ** (step % 4)))
    store.pull(list(shapes), weights)
    store.barrier()
    store.pull(list(shapes), weights)
    return b"".join(weight.tobytes() for weight in weights)


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
@pytest.mark.parametrize("mode", ["async", "ssp"])
def test_an_asynchronous_job_that_is_taken_up_again_makes_each_push_once(mode: str, durability: str) -> None:
    """Also where all die between the parts of a push, and servers have kept other pushes."""
    later = 0
    for seed in range(12):
        plan = Plan("", mode, 2, 2, seed, Weather(0.05), pause=0.5, durability=durability)
        job = Job(plan, by_key)
        for process in (*job.workers, *job.servers, job.scheduler_process):
            job.world.at(1.5 + seed / 4, process.kill)
        job.run()
        again = Job(plan, by_key, root=job.root)
        again.run()
        total = -2.0 * sum(2 ** (step % 4) for step in range(STEPS))
        for worker in again.workers:
            assert set(np.frombuffer(worker.result, np.float32)) == {total}, (seed, worker.error)
        later += any(kept.written or kept.folder.nbytes() for disk in again.disks for kept in disk.opened)
    assert later > 5


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
def test_a_job_of_which_all_dies_in_its_first_second_is_taken_up_with_the_same_bits(durability: str) -> None:
    """Before the scheduler has heard how far workers are: servers have different rounds then."""
    kept = 0
    for seed in range(30):
        plan = Plan("by_key", "sync", 2, 2, seed, Weather(0.02), pause=0.02, durability=durability)
        job = Job(plan)
        for process in (*job.workers, *job.servers, job.scheduler_process):
            job.world.at(0.3 + seed / 30, process.kill)
        job.run()
        again = Job(plan, root=job.root)
        again.run()
        assert again.faults() == [], seed
        kept += any(worker.result is None for worker in job.workers)
    assert kept > 10


@pytest.mark.parametrize("program", PROGRAMS)
def test_servers_that_die_again_and_again_lose_nothing(program: str) -> None:
    deaths = 0
    for seed in range(5):
        plan = Plan(program, "sync", 2, 2, seed, Weather(0.005), pause=0.5, durability="journal", again=6)
        plan.crashes = {rank: (seed * 2 + rank, MOMENTS[seed % 4], 0.3) for rank in (0, 1)}
        job = Job(plan)
        job.run()
        assert job.faults() == [], seed
        deaths += job.starts - 2
    assert deaths > 10


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_job_that_a_death_has_ended_is_taken_up_from_a_cut_with_the_same_bits(program: str, durability: str) -> None:
    later = 0
    for seed in range(6):
        plan = Plan(program, "sync", 2, 2, seed, Weather(0.005), pause=4.0, durability=durability)
        plan.death = (10.0 + 2 * seed, ("worker 1", "the scheduler")[seed % 2])
        job = Job(plan)
        job.run()
        assert job.faults() == [], seed
        again = Job(replace(plan, death=None), root=job.root)
        again.run()
        assert [worker.result for worker in again.workers] == [undisturbed(program, "sync", 2, 2)] * 2
        later += any(node.goes_on > 0 for node in again.scheduler.roster)
    assert later
