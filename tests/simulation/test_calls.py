"""Calls that can't be met: they change nothing, and none outlives its deadline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation import jobs
from simulation.jobs import TIMEOUT_S, Job, Plan

import mxopt
from mxopt.errors import ArgumentError, DeadlineError

ONES = np.ones(300, np.float32)


@pytest.mark.parametrize("key", ["k" * 5000, "\ud800", 2**63, -(2**63) - 1], ids=["long", "no Unicode", "high", "low"])
def test_a_key_that_no_message_can_name_is_refused_and_the_store_goes_on(key: int | str) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        with pytest.raises(
            ArgumentError, match="servers know keys by whole numbers of 64 bits, or by texts of at most"
        ):
            store.init(key, ONES)
        out = np.zeros_like(ONES)
        good = "w" if isinstance(key, str) else 2**63 - 1
        store.init(good, out)
        store.pushpull(good, ONES, out=out)
        return out.tobytes()

    job = Job(Plan("", "sync", 2, 2), program)
    job.run()
    assert [worker.result for worker in job.workers] == [(2 * ONES).tobytes()] * 2, job.workers[0].error


def test_workers_that_initialise_keys_in_different_orders_are_told_so() -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        for key in ("a", "b") if store.rank == 0 else ("b", "a"):
            store.init(key, ONES)
        return b""

    job = Job(Plan("", "sync", 2, 1), program)
    job.run()
    expected = "key 'b': rank 0 initialised 'a' here, rank 1 'b': workers initialise the same keys in the same"
    assert expected in str(job.workers[1].error)


CALLS: dict[str, Callable[[Any, Path], object]] = {
    "init": lambda store, path: store.init("v", ONES),
    "pull": lambda store, path: store.pull("w", ONES.copy()),
    "pushpull": lambda store, path: store.pushpull("w", ONES, out=ONES.copy()),
    "set_optimizer": lambda store, path: store.set_optimizer(mxopt.create("sgd")),
    "barrier": lambda store, path: (store.push("w", ONES), store.barrier()),
    "save_optimizer_states": lambda store, path: store.save_optimizer_states(path / "saved"),
    "load_optimizer_states": lambda store, path: store.load_optimizer_states(path / "states"),
    "save_checkpoint": lambda store, path: store.save_checkpoint(path / "checkpoint"),
    "close": lambda store, path: (store.push("w", ONES), store.close()),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_ends_at_its_deadline_where_a_server_is_stopped_and_nobody_takes_it_for_dead(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "DEAD_AFTER_S", 1e6)
    took: list[float] = []

    def program(store: Any, pause: Callable[[], None]) -> bytes:
        store.set_optimizer(mxopt.create("sgd", momentum=0.9))
        store.init("w", ONES)
        store.pushpull("w", ONES, out=ONES.copy())
        store.save_optimizer_states(tmp_path / "states")
        job.servers[0].stop(1e6)
        began = job.world.now
        try:
            CALLS[call](store, tmp_path)
        finally:
            took.append(job.world.now - began)
        return b""

    job = Job(Plan("", "async", 1, 2), program)
    job.run()
    assert isinstance(job.workers[0].error, DeadlineError)
    assert "server 0" in str(job.workers[0].error)
    assert took[0] < TIMEOUT_S + 1


@pytest.mark.parametrize("call", ["barrier", "close"])
@pytest.mark.parametrize("pushes", [1, 100])
def test_who_waits_until_all_is_taken_asks_for_the_answers_that_may_come_later(call: str, pushes: int) -> None:
    took: list[float] = []

    def program(store: Any, pause: Callable[[], None]) -> bytes:
        store.init(["v", "w"], [ONES, ONES])
        for _ in range(pushes):
            store.push(["v", "w"], [ONES, ONES])
        began = job.world.now
        getattr(store, call)()
        took.append(job.world.now - began)
        return b""

    job = Job(Plan("", "sync", 1, 2), program)
    job.run()
    assert [worker.error for worker in job.workers] == [None]
    assert took[0] < 0.1
