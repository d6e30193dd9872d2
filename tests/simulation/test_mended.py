"""Faults of the first protocol, as whole jobs: none can happen any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from simulation.disk import MOMENTS
from simulation.jobs import Job, Plan, undisturbed
from simulation.network import Weather
from simulation.programs import PROGRAMS

import mxopt
from mxopt.errors import KVStoreError, MXOptError
from mxopt.kvstore import messages as m
from mxopt.kvstore.channel import Call
from mxopt.typing import Array, State


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_server_that_comes_back_with_nothing_never_takes_gradients_for_weights(program: str) -> None:
    """Whenever it dies, also between set_optimizer and init."""
    refused = 0
    for record in range(24):
        plan = Plan(program, "sync", 2, 2, record, Weather(0.005))
        plan.crashes = {record % 2: (record // 2, ("before", "after", "answer")[record % 3], 1.0)}
        job = Job(plan)
        job.run()
        assert job.standing == []
        for worker in job.workers:
            assert worker.error is not None or worker.result == undisturbed(program, "sync", 2, 2), plan
            assert isinstance(worker.error, MXOptError | None), plan
            refused += "has not been initialised" in str(worker.error)
    assert refused


@mxopt.register
class ThirdFails(mxopt.optimizer.SGD):
    """For tests: the third update of each key raises."""

    def update(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        if (self.count(index) or 0) == 2:
            self.set_count(index, 3)
            raise ValueError("the third fails")
        super().update(index, weight, grad, state)


def told(store: Any, pause: Callable[[], None]) -> bytes:
    """The steps in which a push was refused."""
    store.set_optimizer(mxopt.create("thirdfails", learning_rate=1.0))
    out = np.zeros(5, np.float32)
    store.init("w", out)
    found = []
    for step in range(6):
        pause()
        try:
            store.pushpull("w", np.ones(5, np.float32), out=out)
        except KVStoreError as error:
            found += [step] if "the third fails" in str(error) else [99]
    store.barrier()
    return bytes(found) + out.tobytes()


@pytest.mark.parametrize("moment", [None, *MOMENTS])
def test_every_worker_hears_of_a_refusal_whatever_gets_lost(moment: str | None) -> None:
    """Of messages, or with a server."""
    for seed in range(20):
        plan = Plan("", "sync", 3, 1, seed, Weather(0.02, cuts=0.6), pause=0.3)
        if moment is not None:
            plan.durability, plan.crashes = "journal", {0: (5 + seed % 8, moment, 0.5)}
        job = Job(plan, told)
        job.run()
        assert [worker.error for worker in job.workers] == [None] * 3, seed
        expected = bytes([2]) + np.full(5, -15, np.float32).tobytes()
        assert [worker.result for worker in job.workers] == [expected] * 3, seed


LAST = 2**63 - 1
MAD = [
    m.Init(0, ["small"], "float32", [[5]], [[5]], 0, 1, 0, [bytes(20)]),  # its second piece
    m.Init(0, ["matrix"], "float32", [[9, 4]], [[3, 4]], 0, 0, 0, [bytes(9 * 16)]),  # past the end
    m.SetOptimizer(0, LAST, 0),
    m.Push(0, True, ["small"], 0, LAST, LAST, 0, 0.0, LAST, 0, False, [bytes(20)]),
    m.StoreStates(0, LAST, "small", 0, 4, [bytes(4)]),
    m.Config(0, LAST, LAST, True, LAST, False, 0, 1, [b"\xc0"]),
    m.Cut(0, LAST, True),
    m.Rounds(0, ["small"], [LAST]),
]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_worker_asks_that_is_mad_is_refused_and_spoils_nothing_for_the_others(when: str) -> None:
    def spoil(store: Any) -> None:
        if store.rank == 1:
            for message in MAD:
                for server in (0, 1):
                    call = Call()
                    store._store._connections.send(server, replace(message), call)
                    try:
                        store._store._connections.wait(call, "an answer")
                    except MXOptError:
                        continue
                    assert isinstance(message, m.Cut | m.Rounds | m.Config), message

    def program(store: Any, pause: Callable[[], None]) -> bytes:
        if when == "before":
            spoil(store)
        found = PROGRAMS["by_key"](store, pause)
        if when == "after":
            spoil(store)
        return found

    for seed in range(5):
        plan = Plan("by_key", "sync", 2, 2, seed, Weather(0.005), pause=2.0, durability="journal")
        job = Job(plan, program)
        job.run()
        assert [worker.error for worker in job.workers] == [None] * 2, seed
        assert [worker.result for worker in job.workers] == [undisturbed("by_key", "sync", 2, 2)] * 2, seed
        if when == "before":
            assert job.scheduler.checkpoints.cut < LAST
