"""Arrays of large updates that are made again and again are put into large pages."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

import mxopt
from mxopt.engine import pages
from mxopt.sparse import row_sparse_array

COUNT = 3 << 20  # elements, of which there are 12 MiB
ENOUGH = 100  # steps


def small_pages(n: int = COUNT) -> np.ndarray:
    """Ones, in memory that NumPy hasn't allocated."""
    memory = mmap.mmap(-1, 4 * n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found = np.frombuffer(memory, np.float32)
    found[:] = 1
    return found


def large() -> int:
    """The bytes of large pages that this process has."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("AnonHugePages"))


def filled(*given: np.ndarray) -> int:
    """The bytes of large pages that arrays fill at least: but for the first and the last."""
    return sum(x.nbytes - 2 * pages.page_size() for x in given)


@pytest.fixture
def system_can() -> None:
    if not pages.page_size():
        pytest.skip("large pages are switched off, or there are none")
    memory, before = small_pages(), large()
    for _ in pages.settling(np.array([[memory.ctypes.data]]), np.array([[memory.nbytes]])):
        pass
    if large() <= before:
        pytest.skip("this system doesn't put memory into large pages when it is asked to")


@pytest.mark.usefixtures("system_can")
@pytest.mark.parametrize("as_list", [True, False])
def test_arrays_that_stay_are_put_into_large_pages_where_they_were_as_they_were(as_list: bool) -> None:
    weight, grad, other = small_pages(), small_pages(), np.ones(5, np.float32)
    before, places = large(), [x.ctypes.data for x in (weight, grad)]
    updater = mxopt.get_updater(mxopt.create("sgd", learning_rate=2**-10))
    for _ in range(ENOUGH):
        if as_list:
            updater([0, 1], [grad, np.ones(5, np.float32)], [weight, other])
        else:
            updater(0, grad, weight)
    assert [x.ctypes.data for x in (weight, grad)] == places
    assert large() - before >= filled(weight, grad)
    assert (grad == 1).all()
    assert (weight == 1 - ENOUGH * 2**-10).all()


@pytest.mark.usefixtures("system_can")
def test_gradients_that_come_anew_stay_as_they_are() -> None:
    """They may be gone by the next step. The weight is none of them."""
    weight, grads = small_pages(), [small_pages() for _ in range(2)]
    before = large()
    updater = mxopt.get_updater(mxopt.create("sgd"))
    updater(0, grads[0], weight)
    for _ in range(ENOUGH):
        updater(0, grads[1], weight)
    assert filled(weight) <= large() - before <= weight.nbytes


@pytest.mark.parametrize("what", ["few elements", "some rows"])
def test_nothing_is_asked_for_where_it_would_not_pay(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that no gradient had need no memory yet, which a large page would be."""
    asked: list[int] = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *given: asked.append(given[1]))
    rows = what == "some rows"
    weight = np.ones((COUNT // 8 if rows else 12_500, 8), np.float32)
    n = len(weight) // 2 if rows else len(weight)
    grad = row_sparse_array((np.ones((n, 8), np.float32), np.arange(n)), shape=weight.shape)
    updater = mxopt.get_updater(mxopt.create("sgd"))
    for _ in range(ENOUGH):
        updater(0, grad if rows else grad.data, weight)
    assert not asked


def test_a_step_asks_for_some_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """To put memory into large pages takes as long as to copy it."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *given: asked.append(given))
    monkeypatch.setattr(pages, "page_size", lambda: 1 << 21)
    places, sizes = np.array([[5 << 21]]), np.array([[3 * pages.AT_ONCE + (1 << 21) + 7]])
    counts = []
    for _ in pages.settling(places, sizes):
        counts.append(len(asked))
    assert counts == [0] * pages.STEPS + [1, 2, 3, 4]
    assert [given[1] for given in asked] == [pages.AT_ONCE] * 3 + [1 << 21]
    assert [given[0] for given in asked] == [(5 << 21) + k * pages.AT_ONCE for k in range(4)]


def test_arrays_that_are_next_to_each_other_are_one_piece_of_memory() -> None:
    places, sizes = np.array([50_000, 8_000, 0]), np.array([40_000, 4_000, 8_000])
    assert pages._spans(places, sizes) == [(0, 12_000), (50_000, 90_000)]


def test_nothing_is_asked_for_where_whoever_runs_the_system_wants_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "SETTINGS", tmp_path)
    for text, size in (("always madvise [never]", 0), ("always [madvise] never", 2 << 20)):
        (tmp_path / "enabled").write_text(text)
        (tmp_path / "hpage_pmd_size").write_text("2097152\n")
        assert pages.page_size.__wrapped__() == size
    (tmp_path / "enabled").unlink()
    assert pages.page_size.__wrapped__() == 0
