"""Sums of rows that lie apart: an update that reads them where they lie has the bits of one that
gets an array of them."""

from __future__ import annotations

import copy
import ctypes
from typing import Any

import numpy as np
import pytest
from table import ROWS

import mxopt
from mxopt.sparse import RowSparse, sums, table
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table
from mxopt.sparse.summed import Summed

LAZY = [row for row in ROWS if row.name in ("sgd", "adam", "adagrad", "ftrl", "groupadagrad", "dcasgd", "rmsprop")]
SHAPE = (300, 5)


def pushed(rng: np.random.Generator, lists: int, dtype: str, width: int = 5) -> tuple[Any, int, np.ndarray]:
    """Rows by several workers, each in three arrays, one of them empty; how many sums they make,
    and of which rows."""
    ids = [np.sort(rng.choice(SHAPE[0], int(rng.integers(1, 60)), replace=False)) for _ in range(lists)]
    merged, places = sums.merged(ids)
    parts = []
    for at in places:
        half = len(at) // 2
        parts += [(rng.normal(size=(len(x), width)).astype(dtype), x) for x in (at[:0], at[:half], at[half:])]
    return parts, len(merged), merged


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [0, 1, 8, 83])
def test_what_is_reached_is_what_is_added(width: int, dtype: str, rng: np.random.Generator) -> None:
    for lists in (1, 2, 3, 7):
        parts, count, _ = pushed(rng, lists, dtype, width)
        before = [rows.copy() for rows, _ in parts]
        found = sums.reached(parts, count)
        assert found is not None
        rows = [ctypes.string_at(at, width * np.dtype(dtype).itemsize) for at in found[0].tolist()]
        assert b"".join(rows) == sums.added(parts, count).tobytes()
        assert all(np.array_equal(rows, old) for (rows, _), old in zip(parts, before, strict=True))


@pytest.mark.parametrize("row", LAZY, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_an_update_reads_rows_where_they_lie(
    row: Any, dtype: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = table(SHAPE, dtype, "uniform", scale=0.5, seed=3)
    lazy = {"lazy_update": True} if row.takes_lazy_update else {}
    updaters = [mxopt.get_updater(copy.deepcopy(row.make(multi_precision=dtype == "float16", **lazy))) for _ in "ab"]
    weights = [of_table(declared, Initial(declared, "w")) for _ in "ab"]
    every = np.arange(SHAPE[0])
    monkeypatch.setattr("mxopt.sparse.summed.added", None)
    for step in range(6):
        parts, count, ids = pushed(rng, (step + 1) % 3 + 1, "float32" if dtype == "float16" else dtype)
        updaters[0]("w", Summed(parts, ids, SHAPE), weights[0])
        updaters[1]("w", RowSparse(sums.added(parts, count), ids, SHAPE), weights[1])
        assert weights[0].read(every).tobytes() == weights[1].read(every).tobytes(), step


def test_who_reads_the_data_of_a_sum_has_all_read_that() -> None:
    rows = np.ones((3, 2), np.float32)
    found = Summed([(rows, np.array([0, 1, 3])), (rows, np.array([1, 2, 3]))], np.array([2, 3, 5, 7]), (9, 2))
    assert found.dtype == np.float32
    assert found.addresses() is not None
    assert found.data.tolist() == [[1, 1], [2, 2], [1, 1], [2, 2]]
    assert found.addresses() is None
    assert found.copy().indices.tolist() == [2, 3, 5, 7]


def test_rows_of_one_that_came_in_several_arrays_are_put_together() -> None:
    rows = np.arange(10, dtype=np.float16).reshape(5, 2)
    places = np.arange(5)
    found = Summed([(rows[:2], places[:2]), (rows[2:], places[2:])], np.array([1, 2, 4, 6, 8]), (9, 2))
    assert found.data.tobytes() == rows.tobytes()
    assert np.shares_memory(Summed([(rows, places)], places, (5, 2)).data, rows)
