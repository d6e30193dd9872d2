"""Large pages for memory that others have allocated.

An update touches each page once, so in pages of 4 KiB it spends much time on address translation:
Adam's update of ResNet-50's list takes an eighth less time in pages of 2 MiB. NumPy asks for these
when it allocates 4 MiB or more; PyTorch never does. So the arrays of a large update that is made
again and again are moved into large pages.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1
STEPS = 8  # that an array stays in its place, after which it is taken to stay there
AT_ONCE = 16 << 20  # bytes that are put into large pages in a step, at most
GAP = 4096  # bytes between two allocations, at most, that may lie in one large page


def settling(places: np.ndarray, sizes: np.ndarray) -> Iterator[None]:
    """A generator of which a job takes a value before each step. The job's arrays begin at the
    addresses `places`, which may change from step to step, and have `sizes` bytes. After STEPS
    steps, asks the system to move the arrays that are still where they began into large pages, as
    far as they fill them, at most AT_ONCE bytes a step. Contents and addresses stay. Does nothing
    if the system can't, or isn't allowed to.

    A step with AT_ONCE takes 5 ms more on a machine that has large pages at hand, 40 ms where the
    system has to make them first.
    """
    size = page_size()
    if not (size and len(sizes)):
        return
    before = places.copy()
    for _ in range(STEPS):
        yield
    stayed = places == before
    for first, end in _spans(places[stayed], sizes[stayed]):
        first, end = -(-first // size) * size, end // size * size
        for part in range(first, end, AT_ONCE):
            _madvise()(part, min(AT_ONCE, end - part), COLLAPSE)
            yield


@cache
def page_size() -> int:
    """The bytes of a large page; 0 if there are none, or the system's settings forbid them."""
    try:
        wanted = sys.platform == "linux" and "[never]" not in (SETTINGS / "enabled").read_text()
        return int((SETTINGS / "hpage_pmd_size").read_text()) if wanted else 0
    except (OSError, ValueError):
        return 0


@cache
def _madvise() -> Callable[[int, int, int], int]:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return madvise  # it raises nothing; if it fails, nothing has changed


def _spans(places: np.ndarray, sizes: np.ndarray) -> list[tuple[int, int]]:
    """The addresses where arrays begin and end; neighbours are joined."""
    found: list[tuple[int, int]] = []
    for first, end in sorted(zip(places.tolist(), (places + sizes).tolist(), strict=True)):
        if found and first - found[-1][1] <= GAP:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((first, end))
    return found
