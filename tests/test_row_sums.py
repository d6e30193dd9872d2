"""Sums of rows that are listed by their numbers: the compiled functions write what NumPy's
write."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest

from mxopt.sparse import row_sparse_array, sums

LISTS = [
    ([], []), ([3], []), ([], [0, 2**63 - 2]), ([1, 5, 9], [1, 5, 9]), ([1, 2, 3], [4, 5]), ([4, 5], [1, 2, 3]),
    ([0, 7, 8], [7], [1, 7, 9]),
]  # fmt: skip


def arrays(lists: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(each, np.int64) for each in lists]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("lists", LISTS)
def test_lists_are_merged(lists: Sequence[Sequence[int]], engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXOPT_ENGINE", engine)
    ids, places = sums.merged(arrays(lists))
    assert ids.tolist() == sorted(set().union(*lists))
    assert [ids[at].tolist() for at in places] == [list(each) for each in lists]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("width", [0, 1, 7, 8, 64, 83])
def test_rows_are_added_in_the_order_in_which_they_come(
    width: int, dtype: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    count = 40
    places = [np.arange(count), rng.integers(0, count, 60), rng.integers(0, count, 60), np.empty(0, np.int64)]
    parts = [(np.where(rng.random((len(at), width)) < 0.2, -0.0, rng.normal(size=(len(at), width))).astype(real), at)
             for at in places]  # fmt: skip
    expected: list[np.ndarray | None] = [None] * count
    for rows, at in parts:
        for row, place in zip(rows, at.tolist(), strict=True):
            before = expected[place]
            expected[place] = row.copy() if before is None else before + row
    for engine in ("llvm", "numpy"):
        monkeypatch.setenv("MXOPT_ENGINE", engine)
        total = sums.added(parts, count)
        assert total.dtype == real
        assert total.tobytes() == b"".join(row.tobytes() for row in expected if row is not None)


def test_many_rows_of_the_same_numbers_are_added_as_one_after_the_other(rng: np.random.Generator) -> None:
    ids = rng.integers(0, 1000, 20_000)
    data = rng.normal(size=(len(ids), 5)).astype(np.float32)
    expected = np.zeros((1000, 5), np.float32)
    np.add.at(expected, ids, data)
    found = row_sparse_array((data, ids), (1000, 5))
    assert found.indices.tolist() == np.unique(ids).tolist()
    assert np.array_equal(found.data, expected[found.indices])
