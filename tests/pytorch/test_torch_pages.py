"""Parameters are put into large pages."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mxopt.engine import pages  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402

COUNT = 3 << 20  # elements, of which there are 12 MiB


def large(places: list[int]) -> int:
    """The bytes of large pages in those parts of the process' memory in which these addresses
    are."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        part = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if part:
            here = any(int(part[1], 16) <= place < int(part[2], 16) for place in places)
        elif here and line.startswith("AnonHugePages"):
            found += int(line.split()[1]) << 10
    return found


@pytest.fixture
def system_can() -> None:
    if not pages.page_size():
        pytest.skip("large pages are switched off, or there are none")
    memory = np.frombuffer(bytearray(16 << 20), np.uint8)
    before = large([memory.ctypes.data])
    pages.gather([memory])
    if large([memory.ctypes.data]) <= before:
        pytest.skip("this system doesn't put memory into large pages when it is asked to")


@pytest.mark.usefixtures("system_can")
def test_parameters_lie_in_large_pages_where_they_were_as_they_were() -> None:
    weights = [torch.nn.Parameter(torch.arange(n, dtype=torch.float32)) for n in (COUNT, 5)]
    places, values = [w.data_ptr() for w in weights], [w.detach().clone() for w in weights]
    before = large(places[:1])
    optimizer = Optimizer(weights, "sgd", lr=0.5)
    assert large(places[:1]) - before >= 4 * COUNT - 2 * pages.page_size()
    assert [w.data_ptr() for w in weights] == places
    assert all(map(torch.equal, weights, values))
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer.step()
    assert all(torch.equal(w, value - 0.5) for w, value in zip(weights, values, strict=True))


def test_arrays_that_are_next_to_each_other_are_one_piece_of_memory() -> None:
    memory = np.zeros(10_000)
    first, second, far = memory[:1000], memory[1000:1500][::-2], memory[5000:]
    start = memory.ctypes.data
    spans = pages._spans([far, second, first])
    assert spans == [(start, start + 8 * 1500), (start + 8 * 5000, start + 8 * 10_000)]


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
