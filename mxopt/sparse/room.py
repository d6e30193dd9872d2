"""Arrays with room to grow where they are.

Address space is reserved for more rows than there could ever be, and memory is taken page by page
as rows are written: so an array grows without being copied, nothing that points into it has to
change, and it takes no more memory than its rows.
"""

from __future__ import annotations

import math
import mmap
import os
from functools import cache

import numpy as np

from mxopt.device import is_cupy, library_of, on_device_of
from mxopt.typing import Array

NO_RESERVE = 0x4000  # Linux: address space that counts for nothing until it is written to
LEAST = 1 << 16  # bytes; that much is simply there


def room(
    count: int, shape: tuple[int, ...], dtype: np.dtype, before: Array = None, used: int = 0, like: Array = None
) -> Array:
    """An array with room for `count` rows, and if possible for all that `shape` allows; what was
    never written is zeros.

    `before`: the array so far; where that has no room, its first `used` rows are copied. `like`: an
    array of the device that it shall be on. Raises MemoryError if there is no memory.
    """
    if before is not None and len(before) >= count:
        return before
    row_bytes = max(1, math.prod(shape[1:]) * dtype.itemsize)
    if before is None and shape[0] * row_bytes > LEAST and not is_cupy(like):
        made = _reserved(max(count, min(shape[0], 2 * _memory() // row_bytes)), shape[1:], dtype)
        if made is not None:
            return made
    with on_device_of(like):
        found = library_of(like).zeros((min(shape[0], max(count, 2 * used, LEAST // row_bytes)), *shape[1:]), dtype)
    if before is not None:
        found[:used] = before[:used]
    return found


def _reserved(count: int, rest: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """An array in reserved address space; None if that isn't possible, as under a limit on it."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # no Linux
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
    try:
        memory = mmap.mmap(-1, max(1, count * math.prod(rest) * dtype.itemsize), flags=flags)
    except (OSError, OverflowError):
        return None
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.ndarray((count, *rest), dtype, memory)


@cache
def _memory() -> int:
    """The bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
