"""Workers that don't do the same: an error says who lacks what, long before the deadline; none
where all is well."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulation.jobs import Job, Plan
from simulation.network import Weather

import mxopt
from mxopt.errors import KVStoreError

SOON_S = 14.0
ONE = np.ones(3, np.float32)


def errors(program: Callable[[Any, Callable[[], None]], Any], workers: int = 2, seed: int = 0) -> list[str]:
    """What the workers raise; all of them end soon."""
    job = Job(Plan("by_key", "sync", workers, 2, seed, Weather(0.01, cuts=3.0)), prepared(program))
    job.run()
    assert job.standing == []
    assert job.world.now < SOON_S
    return [str(worker.error) for worker in job.workers]


def prepared(program: Callable[[Any, Callable[[], None]], Any]) -> Callable[..., bytes]:
    def run(store: Any, pause: Callable[[], None]) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
        store.init(["a", "b"], [np.zeros(3, np.float32)] * 2)
        program(store, pause)
        return b""

    return run


@pytest.mark.parametrize("seed", range(5))
def test_a_key_that_one_worker_leaves_out(seed: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> None:
        out = ONE.copy()
        for _ in range(3):
            pause()
            store.push("a", ONE)
            if store.rank == 0:
                store.push("b", ONE)
            store.pull("a", out)
            store.pull("b", out)

    for error in errors(program, seed=seed):
        assert "worker 0 waits, as worker 1 hasn't pushed key 'b'" in error or "worker 1 has ended" in error


@pytest.mark.parametrize("seed", range(5))
def test_another_order_of_keys(seed: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> None:
        for key in ("a", "b") if store.rank == 0 else ("b", "a"):
            pause()
            store.pushpull(key, ONE, out=ONE.copy())

    for error in errors(program, seed=seed):
        assert "worker 0 waits, as worker 1 hasn't pushed key 'a'" in error
        assert "worker 1 waits, as worker 0 hasn't pushed key 'b'" in error


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_fewer_before_a_barrier(seed: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> None:
        for _ in range(3 if store.rank == 1 else 4):
            pause()
            store.pushpull("a", ONE, out=ONE.copy())
        store.barrier()

    for error in errors(program, workers=3, seed=seed):
        assert "worker 0 waits, as worker 1 hasn't pushed key 'a'" in error
        assert "worker 1 waits, as worker 0 hasn't come to barrier" in error


def test_a_worker_that_only_takes_its_time_is_no_circle() -> None:
    def program(store: Any, pause: Callable[[], None]) -> None:
        for _ in range(2):
            if store.rank == 1:
                store._job.workers[1].stop(30.0, held=True)
                pause()
            store.push("a", ONE)
            store.barrier()
            store.pull("a", ONE.copy())

    job = Job(Plan("by_key", "sync", 3, 2, 0, Weather(0.01, cuts=3.0), pause=0.2), prepared(program))
    job.run()
    assert [worker.error for worker in job.workers] == [None] * 3
    assert job.world.now > 30


@pytest.mark.parametrize("seed", range(8))
def test_a_push_before_a_barrier_and_one_behind_it_are_no_circle_where_answers_get_lost(seed: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        out = ONE.copy()
        for _ in range(4):
            if store.rank == 0:
                store.push(["a", "b"], [ONE, ONE])
            store.barrier()
            if store.rank == 1:
                pause()
                store.push(["a", "b"], [ONE, ONE])
            store.pull("a", out)
            store.barrier()
        return out.tobytes()

    def begun(store: Any, pause: Callable[[], None]) -> bytes:
        prepared(lambda store, pause: None)(store, pause)
        return program(store, pause)

    job = Job(Plan("by_key", "sync", 2, 1, seed, Weather(0.05, cuts=0.4)), begun)
    job.run()
    assert [worker.error for worker in job.workers] == [None] * 2
    assert [worker.result for worker in job.workers] == [np.full(3, -8, np.float32).tobytes()] * 2


@pytest.mark.parametrize("seed", range(5))
def test_a_parameter_that_one_worker_does_not_train_is_told_at_its_next_step(seed: int) -> None:
    """By a Trainer, whose steps are numbered: the worker that leaves it out hears it itself, at
    once."""

    def program(store: Any, pause: Callable[[], None]) -> None:
        params = [mxopt.Parameter(np.zeros(3, np.float32), name=name) for name in "uv"]
        trainer = mxopt.Trainer(params, "sgd", kvstore=store)
        for step in range(3):
            pause()
            for param in params:
                param.grad = ONE.copy()
            if step == 1 and store.rank == 1:
                params[1].requires_grad = False
            trainer.step(1)

    def alone(store: Any, pause: Callable[[], None]) -> bytes:
        program(store._store, pause)
        return b""

    job = Job(Plan("by_key", "sync", 2, 2, seed, Weather(0.01)), alone)
    job.run()
    assert "worker 1 has begun step 3 without having pushed key 1, which worker 0 pushed in step 2" in str(
        job.workers[1].error
    )
    assert "without having pushed key 1" in str(job.workers[0].error)
    assert job.world.now < 5


def test_batches_that_are_numbered_otherwise_are_never_summed() -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        param = mxopt.Parameter(np.zeros(3, np.float32), name="u")
        trainer = mxopt.Trainer([param], "sgd", kvstore=store._store)
        for step in range(3):
            param.grad = ONE.copy()
            if step == 1 and store.rank == 1:
                trainer._exchanged += 1  # as if it had left one out
            trainer.step(1)
        return b""

    job = Job(Plan("by_key", "sync", 2, 1, 0, Weather(0.01)), program)
    job.run()
    for worker in job.workers:
        assert "key 0: worker 0 pushed for round 2 in step 2, worker 1 in step 3" in str(worker.error)


@pytest.mark.parametrize("rank", [0, 1])
def test_all_workers_place_arrays_by_the_bound_of_worker_0(rank: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        out = np.zeros(300, np.float32)
        store.init("wide", out)
        store.pushpull("wide", np.ones_like(out), out=out)
        return out.tobytes()

    job = Job(Plan("", "sync", 2, 2), program)
    job.own["worker", rank] = {"bound": 10**6}
    job.run()
    assert [worker.result for worker in job.workers] == [np.full(300, 2, np.float32).tobytes()] * 2


def test_another_staleness_is_named() -> None:
    job = Job(Plan("", "ssp", 2, 1), lambda store, pause: b"")
    job.own["worker", 1] = {"staleness": 9}
    job.run()
    errors = [str(worker.error) for worker in job.workers]
    assert re.search("MXOPT_KVSTORE_STALENESS is [29] in this job, and [29] for worker [01]", str(errors))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_trainer_with_fewer_parameters_hears_which_key_it_lacks(rank: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        names = "u" if store.rank == rank else "uv"
        params = [mxopt.Parameter(np.zeros(3, np.float32), name=name) for name in names]
        trainer = mxopt.Trainer(params, "sgd", kvstore=store._store)
        for param in params:
            param.grad = ONE.copy()
        trainer.step(1)
        return b""

    job = Job(Plan("by_key", "sync", 2, 1, 0, Weather(0.01)), program)
    job.run()
    lists = ["0", "0, 1"]
    told = f"key 1: rank 0 initialised {lists[rank]} here, rank 1 {lists[1 - rank]}: workers initialise the same keys"
    for worker in job.workers:
        assert told in str(worker.error)


@pytest.mark.parametrize("mode", ["sync", "async", "ssp"])
@pytest.mark.parametrize("count", [3, 200])
def test_a_trainer_whose_parameters_are_called_otherwise_hears_where(mode: str, count: int) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        names: list[str | None] = [f"w{k}" for k in range(count)]
        if store.rank == 1:
            names[1:3] = names[2:0:-1]
        if store.rank == 2:
            names[1] = None  # which says nothing
        params = [mxopt.Parameter(np.full(2, store.rank, np.float32), name=name) for name in names]
        trainer = mxopt.Trainer(params, "sgd", kvstore=store._store)
        for param in params:
            param.grad = np.ones(2, np.float32)
        try:
            trainer.step(1)
        except KVStoreError:
            assert params[0].value[0] == store.rank  # nothing has changed
            raise
        return b""

    job = Job(Plan("by_key", mode, 3, 1, 0, Weather(0.01)), program)
    job.run()
    which = {3: "parameter 1 is called 'w2'", 200: "parameters 0 to 6 are called 'w0', 'w2', 'w1', 'w3', 'w4' ..."}
    assert f"{which[count]} in the Trainer of rank 1, and otherwise in that of rank 0" in str(job.workers[1].error)
    assert "in the Trainer of rank 2" not in str([worker.error for worker in job.workers])
