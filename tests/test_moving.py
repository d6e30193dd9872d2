"""Rows copied between one array and several parts: the compiled functions write what NumPy writes,
wherever in memory the arrays lie."""

from __future__ import annotations

import numpy as np
import pytest

from mxopt.sparse import moving


@pytest.fixture(params=["llvm", "numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is copied is enough for the compiled functions."""
    monkeypatch.setenv("MXOPT_ENGINE", request.param)
    monkeypatch.setattr(moving, "LEAST", 1)


def lying(count: int, width: int, dtype: str, offset: int) -> np.ndarray:
    """Zeros (count, width) so many bytes behind a multiple of LINE."""
    memory = moving.empty_rows(1, count * width * np.dtype(dtype).itemsize + offset, np.dtype(np.uint8))[0]
    memory[:] = 0
    found: np.ndarray = memory[offset:].view(dtype).reshape(count, width)
    return found


def parted(count: int, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Which of so many places belong to each part: the last has none, and some belong to nobody."""
    holder = rng.integers(-1, max(1, parts - 1), count)
    return [np.flatnonzero(holder == part) for part in range(parts)]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("offset", [0, 8, 16])
@pytest.mark.parametrize(("width", "dtype"), [(16, "float32"), (64, "float32"), (83, "float64"), (3, "float16")])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_rows_go_to_their_parts_and_back(
    parts: int, width: int, dtype: str, offset: int, rng: np.random.Generator
) -> None:
    count = 500
    rows = lying(count, width, dtype, offset)
    rows[...] = rng.standard_normal((count, width))
    places = parted(count, parts, rng)
    shares = [(mine, lying(len(mine), width, dtype, offset)) for mine in places]
    moving.take(rows, shares)
    for mine, part in shares:
        np.testing.assert_array_equal(part, rows[mine])

    back = lying(count, width, dtype, offset)
    moving.put(back, shares)
    there = np.concatenate(places)
    expected = np.zeros_like(rows)
    expected[there] = rows[there]
    np.testing.assert_array_equal(back, expected)


@pytest.mark.usefixtures("engine")
def test_rows_of_other_layouts_are_moved(rng: np.random.Generator) -> None:
    rows = np.asfortranarray(rng.standard_normal((40, 16)))
    places = [np.arange(0, 40, 2), np.arange(1, 40, 2)]
    shares = [(mine, np.zeros((20, 16))) for mine in places]
    moving.take(rows, shares)
    back = np.zeros((16, 40)).T
    moving.put(back, shares)
    np.testing.assert_array_equal(back, rows)


@pytest.mark.parametrize(("count", "unit"), [(0, 4), (5, 0), (1, 1), (1000, 64)])
def test_new_rows_begin_at_a_line(count: int, unit: int) -> None:
    made = [moving.empty_rows(count, unit, np.dtype(np.float32)) for _ in range(20)]
    assert {rows.shape for rows in made} == {(count, unit)}
    assert all(rows.flags.writeable and rows.ctypes.data % moving.LINE == 0 for rows in made if rows.size)
