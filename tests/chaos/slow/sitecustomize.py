"""Makes the disk slow for the Python processes that find this folder on their path: each write to a
file, and each wait for the disk, takes some milliseconds more."""

import os
import stat
import time
from collections.abc import Callable
from typing import Any

SECONDS = 0.02


def _slow(call: Callable[..., Any]) -> Callable[..., Any]:
    def slowed(fd: int, *arguments: Any) -> Any:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            time.sleep(SECONDS)
        return call(fd, *arguments)

    return slowed


for name in ("write", "writev", "pwrite", "pwritev", "fsync", "fdatasync"):
    setattr(os, name, _slow(getattr(os, name)))
