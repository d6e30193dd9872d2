"""Rows of simulated jobs that travel in several messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation.jobs import Job, Plan
from simulation.network import Weather

import mxopt
from mxopt.errors import StatesError
from mxopt.kvstore import rows
from mxopt.sparse import row_sparse_array, table, zeros


@pytest.mark.parametrize("value", [np.zeros((9, 2), np.float32), table((9, 2))], ids=["dense", "table"])
def test_a_changed_optimizer_goes_ahead_of_all_messages_of_the_rows(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MESSAGE_BYTES", 16)  # two rows in a message
    ids = np.arange(9)

    def program(store: Any, pause: Callable[[], None]) -> bytes:
        optimizer = mxopt.create("sgd", learning_rate=1.0)
        store.set_optimizer(optimizer)
        store.init("w", value)
        for rate in (1.0, 0.5):
            optimizer.set_learning_rate(rate)
            store.push("w", row_sparse_array((np.ones((9, 2), np.float32), ids), (9, 2)))
        out = zeros("row_sparse", (9, 2))
        store.row_sparse_pull("w", out, row_ids=ids)
        return bytes(out.data.tobytes())

    job = Job(Plan("by_key", "sync", 2, 2, 0, Weather(0.01, cuts=3.0)), program)
    job.run()
    assert [worker.error for worker in job.workers] == [None] * 2
    assert [worker.result for worker in job.workers] == [np.full((9, 2), -3, np.float32).tobytes()] * 2


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (table((9, 2)), np.zeros((9, 2), np.float32), r"float32 \(9, 2\) by rows, of a dense value"),
        (np.zeros((9, 2), np.float32), table((9, 2)), r"float32 \(9, 2\) whole, of a table"),
    ],
    ids=["rows to dense", "dense to rows"],
)
def test_states_of_rows_and_of_whole_values_are_not_taken_for_each_other(
    first: Any, second: Any, why: str, tmp_path: Path
) -> None:
    def program(store: Any, pause: Callable[[], None], value: Any, load: bool) -> bytes:
        store.set_optimizer(mxopt.create("adam"))
        store.init("w", value)
        push = row_sparse_array((np.ones((2, 2), np.float32), [1, 4]), (9, 2))
        store.push("w", push)
        if not load:
            store.save_optimizer_states(tmp_path / "states")
            return b"saved"
        with pytest.raises(StatesError, match=f"key 'w': the states don't fit .*there is {why}"):
            store.load_optimizer_states(tmp_path / "states")
        store.push("w", push)  # its own states have stayed
        return b"refused"

    for value, load, said in ((first, False, b"saved"), (second, True, b"refused")):
        job = Job(Plan("by_key", "sync", 1, 1), partial(program, value=value, load=load))
        job.run()
        assert [worker.result or worker.error for worker in job.workers] == [said]
