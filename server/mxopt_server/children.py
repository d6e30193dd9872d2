"""Child processes: starting and signalling them, and how they ended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from mxopt.errors import MXOptError

PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


class LaunchError(MXOptError):
    """A process of the job can't be started."""


def die_with(parent: int, number: int) -> Callable[[], None] | None:
    """What a child does before it becomes its program: sees to it that it gets a signal when its
    parent is gone, however that ends. (More exactly: when the thread of the parent that started it
    ends.)"""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def send(child: subprocess.Popen[bytes], number: int) -> bool:
    """Sends a signal to a child and all it has started. Whether there is any of them."""
    try:
        os.killpg(child.pid, number)
        if number == signal.SIGTERM:  # which who is stopped hears only when it goes on
            os.killpg(child.pid, signal.SIGCONT)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def how(code: int) -> str:
    """In words how a process ended, by its exit code."""
    if code >= 0:
        return f" with exit code {code}"
    try:
        return f": killed by {signal.Signals(-code).name}"
    except ValueError:
        return f": killed by signal {-code}"
