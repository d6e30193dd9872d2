"""A row-sparse gradient under a rule that moves every row costs what a dense one costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree
from table import ROWS, Row

import mxopt
from mxopt.engine import native, passes, team
from mxopt.sparse import row_sparse_array

SHAPE = (4001, 23)  # of six pieces, whose rows begin anywhere in them


def make(row: Row) -> Any:
    return row.make(**{"lazy_update": False} if row.takes_lazy_update else {})


def moves_all(optimizer: Any) -> bool:
    return not (optimizer.rule.by_row or (optimizer.lazy_update and optimizer.rule.lazy))


MOVES_ALL = [row for row in ROWS if moves_all(make(row))]


def some_rows(rng: np.random.Generator, share: float) -> Any:
    rows = np.flatnonzero(rng.random(SHAPE[0]) < share)
    return row_sparse_array((array(rng, (len(rows), SHAPE[1]), "float32"), rows), shape=SHAPE)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls of compiled functions."""
    calls, runner, compiled_passes = [], team.runner, passes.compiled

    def count(call: Callable[[int], Any]) -> Callable[[int], Any]:
        def counting(address: int) -> None:
            calls.append(address)
            call(address)

        return counting

    monkeypatch.setattr(team, "runner", lambda release: count(runner(release)))
    monkeypatch.setattr(passes, "compiled", lambda *given: count(compiled_passes(*given)))
    return calls


@pytest.mark.parametrize("row", MOVES_ALL, ids=str)
def test_as_many_calls_as_a_dense_gradient(row: Row, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, numbers = counted(monkeypatch), []
    for grads in ([some_rows(rng, 0.1), some_rows(rng, 0.3)], [array(rng, SHAPE, "float32")] * 2):
        updater, weight = mxopt.get_updater(make(row)), np.ones(SHAPE, np.float32)
        for grad in grads:  # the second meets what was prepared for the first
            before = len(calls)
            updater(0, grad, weight)
            numbers.append(len(calls) - before)
    assert numbers[:2] == numbers[2:]
    assert numbers[-1] > 0


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("row", MOVES_ALL, ids=str)
def test_any_number_of_threads(row: Row, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    mxopt.set_num_threads(3)
    grads = [[some_rows(rng, share)] for share in (0.1, 0, 1, 0.5)]
    start = array(rng, SHAPE, "float32")
    runs = [Run(make(row), [start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: grads[step], steps=4)
