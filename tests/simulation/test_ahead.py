"""Values that come with the answers to pushes, where a script pulls what it has pushed: one message
each way for both, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulation.jobs import Job, Plan
from simulation.network import Weather

import mxopt
from mxopt.kvstore import wire

ONE = np.ones(3, np.float32)
Pause = Callable[[], None]


def job(program: Callable[[Any, Pause], Any], workers: int = 2, **plan: Any) -> Job:
    """A job in which all workers run a program, once `a` and `b` begin with zeros."""

    def run(store: Any, pause: Pause) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
        store.init(["a", "b"], [np.zeros(3, np.float32)] * 2)
        return np.asarray(program(store, pause), np.float32).tobytes()

    made = Job(Plan("by_key", plan.pop("mode", "sync"), workers, 1, **plan), run)
    made.run()
    return made


def results(made: Job) -> list[list[float]]:
    assert [worker.error for worker in made.workers] == [None] * len(made.workers)
    found = [np.frombuffer(worker.result, np.float32).tolist() for worker in made.workers if worker.result]
    assert len(found) == len(made.workers)
    return found


def asked(store: Any) -> int:
    """The requests that a worker has made so far."""
    count: int = store._store._connections.channels[0].next - 1
    return count


@pytest.mark.parametrize(("mode", "elements", "each"), [("sync", 3, 1), ("async", 3, 2), ("sync", wire.SMALL // 4, 2)])
def test_small_values_that_are_pulled_after_each_push_are_asked_for_with_it(
    mode: str, elements: int, each: int
) -> None:
    """Those of asynchronous stores can change in between, and large ones would have to be copied
    once more."""

    def program(store: Any, pause: Pause) -> list[int]:
        grad, out = np.ones(elements, np.float32), np.zeros(elements, np.float32)
        store.init("w", out)
        before = 0
        for step in range(10):
            if step == 2:
                before = asked(store)
            store.push("w", grad)
            store.pull("w", out)
        return [asked(store) - before]

    assert results(job(program, mode=mode)) == [[8 * each]] * 2


def test_pulls_give_the_values_of_the_last_push_whatever_the_order_of_calls() -> None:
    def program(store: Any, pause: Pause) -> list[float]:
        found: list[float] = []

        def pull(*keys: str) -> None:
            outs = [np.zeros(3, np.float64) for _ in keys]
            store.pull(list(keys), outs)
            found.extend(float(out[0]) for out in outs)

        def push(*keys: str) -> None:
            store.push(list(keys), [ONE] * len(keys))

        for _ in range(2):
            push("a")
            pull("a")
        push("a")  # asks for the values, which nobody pulls
        push("a")
        pull("a")
        push("a")
        pull("a")
        pull("a")  # once more
        push("a", "b")
        pull("a")
        pull("b")
        push("a")
        store.pushpull("a", ONE, out=ONE.copy())
        pull("a", "b")
        return found

    expected = [-2, -4, -8, -10, -10, -12, -2, -16, -2]
    assert results(job(program, seed=3, weather=Weather(0.02, cuts=1.0))) == [expected] * 2


@pytest.mark.parametrize("seed", range(8))
def test_who_has_pushed_and_goes_to_a_barrier_does_not_wait_for_the_values(seed: int) -> None:
    def program(store: Any, pause: Pause) -> list[float]:
        out = ONE.copy()
        for _ in range(3):
            store.push("a", ONE)
            store.pull("a", out)
        if store.rank == 0:
            store.push("a", ONE)
            store.barrier()
        else:
            store.barrier()
            pause()
            store.push("a", ONE)
        store.pull("a", out)
        return out.tolist()

    assert results(job(program, seed=seed, weather=Weather(0.05, cuts=0.4))) == [[-8, -8, -8]] * 2


def test_a_worker_that_waits_for_another_key_is_no_circle_for_values_that_it_has_asked_for() -> None:
    """Worker 0 waits for worker 2's push of `b`, worker 1 for worker 0's second of `b`; that worker
    0 has asked for `a`, which worker 1 hasn't pushed, holds up nobody."""

    def program(store: Any, pause: Pause) -> list[float]:
        out = ONE.copy()
        for _ in range(2):
            for key in "ab":
                store.push(key, ONE)
                store.pull(key, out)
        if store.rank == 2:
            store._job.workers[2].stop(20.0, held=True)
            pause()
        if store.rank == 0:
            store.push("a", ONE)
        for _ in range(2):
            store.push("b", ONE)
            store.pull("b", out)
        if store.rank:
            store.push("a", ONE)
        store.pull("a", out)
        return out.tolist()

    assert results(job(program, workers=3)) == [[-9, -9, -9]] * 3


def test_a_round_that_fails_is_told_to_who_pulls_its_values() -> None:
    def program(store: Any, pause: Pause) -> list[float]:
        out = ONE.copy()
        for step in range(1, 5):
            store._store.step = step + (step == 4 and store.rank == 1)
            store.push("a", ONE)
            store.pull("a", out)
        return out.tolist()

    made = job(program)
    for worker in made.workers:
        assert "worker 0 pushed for round 4 in step 4, worker 1 in step 5" in str(worker.error)
