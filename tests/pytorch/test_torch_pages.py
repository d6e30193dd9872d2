"""Parameters, and gradients that autograd adds to where they are, are put into large pages."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mxopt.engine import pages  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402

COUNT = 3 << 20  # elements, of which there are 12 MiB
STEPS = 50


def small_pages() -> Any:
    """Zeros, in memory that nobody has had before."""
    return torch.frombuffer(mmap.mmap(-1, 4 * COUNT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.float32)


def large() -> int:
    """The bytes of large pages that this process has."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("AnonHugePages"))


@pytest.fixture
def system_can() -> None:
    if not pages.page_size():
        pytest.skip("large pages are switched off, or there are none")
    memory, before = small_pages().add_(1), large()
    for _ in pages.settling(np.array([[memory.data_ptr()]]), np.array([[memory.nbytes]])):
        pass
    if large() <= before:
        pytest.skip("this system doesn't put memory into large pages when it is asked to")


@pytest.mark.usefixtures("system_can")
def test_parameters_and_gradients_that_stay_lie_in_large_pages() -> None:
    weight, grad, other = torch.nn.Parameter(small_pages()), small_pages(), torch.nn.Parameter(torch.zeros(5))
    optimizer = Optimizer([weight, other], "sgd", lr=2**-10)
    weight.grad = grad
    places, before = (weight.data_ptr(), grad.data_ptr()), large()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        (weight.sum() + other.sum()).backward()
        optimizer.step()
    assert large() - before >= 2 * (grad.nbytes - 2 * pages.page_size())
    assert (weight.data_ptr(), weight.grad.data_ptr()) == places
    assert all((w == -STEPS * 2**-10).all() for w in (weight, other))
