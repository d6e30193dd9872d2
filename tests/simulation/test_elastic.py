"""Processes that are replaced: workers of async and ssp, and servers that were only asleep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from simulation.jobs import Job, Plan, undisturbed
from simulation.network import Weather
from simulation.world import Process

import mxopt

STEPS = 10
NEVER = (1 << 60, "before", 0.0)  # a crash: the server has a disk


def counting(store: Any, pause: Callable[[], None]) -> bytes:
    """Every push takes off one; returns what a pull sees last."""
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    weight = np.zeros(200, np.float32)  # on all servers
    store.init("w", weight)
    before = store.round("w")
    for _ in range(STEPS):
        pause()
        store.push("w", np.ones_like(weight))
    assert store.round("w") == before + STEPS
    store.barrier()
    store.pull("w", weight)
    return weight.tobytes()


def join(job: Job, worker: Process) -> None:
    job.workers.append(worker)
    worker.start()


@pytest.mark.parametrize("mode", ["async", "ssp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_and_comes_back_is_nobody_elses_error(mode: str, rank: int) -> None:
    for seed in range(10):
        job = Job(Plan("adding", mode, 3, 2, seed, Weather(0.005, cuts=5.0), pause=4.0), counting)
        again = Process(job.world, f"worker {rank} again", job._worker(rank))
        job.world.at(3.0 + seed / 3, job.workers[rank].kill)
        job.world.at(5.0 + seed / 3, partial(join, job, again))
        died = job.workers[rank]
        job.run()
        others = [worker for worker in job.workers if worker is not died]
        assert [worker.error for worker in others] == [None] * 3, seed
        assert all(server.error is None for server in job.servers)
        assert job.scheduler.course.state == "finished"
        last = min(np.frombuffer(worker.result, np.float32).min() for worker in others)
        assert -4 * STEPS <= last <= -3 * STEPS, (seed, last)  # all of three, and what the dead one had pushed


def test_a_worker_of_async_that_dies_and_stays_away_leaves_the_job_to_the_others() -> None:
    for seed in range(10):
        job = Job(Plan("adding", "ssp", 2, 1, seed, Weather(0.005), pause=1.0), counting)
        job.world.at(1.0 + seed / 2, job.workers[1].kill)
        job.run()
        assert job.workers[0].error is None, seed
        assert job.scheduler.course.state == "finished"


def test_a_server_that_was_replaced_in_its_sleep_changes_nothing_when_it_wakes() -> None:
    for seed in range(10):
        plan = Plan("pushes_only", "sync", 2, 1, seed, Weather(0.005), pause=3.0)
        plan.durability, plan.crashes = "journal", {0: NEVER}
        job = Job(plan)
        asleep = job.servers[0]
        job.world.at(2.0 + seed / 5, partial(asleep.stop, 25.0))
        job.world.at(5.0, partial(job._start_again, 0))
        job.run()
        assert job.standing == []
        expected = undisturbed("pushes_only", "sync", 2, 1)
        for worker in job.workers:
            assert worker.error is None, (seed, worker.error)
            assert worker.result == expected
        asleep.kill()
