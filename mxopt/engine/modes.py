"""Modes of a processor: how it rounds, and whether it flushes denormals.

Each thread has its own. If a thread's was set (`torch.set_flush_denormal`, `fesetround`) it holds
for all of an update, not only for what happens to be done in that thread: a thread that works for
another takes over its mode.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

MODE_WORDS = 8  # of 8 bytes, that a mode takes at most


@cache
def functions() -> tuple[Any, Any] | None:
    """C's `fegetenv` and `fesetenv`, which take an address; None where there are none."""
    try:
        library: Any = ctypes.PyDLL(None)
        found = library.fegetenv, library.fesetenv
    except (TypeError, OSError, AttributeError):
        return None
    for function in found:
        function.argtypes = [ctypes.c_void_p]
    return found


def addresses() -> tuple[int, int] | None:
    """The addresses of these functions, for compiled code."""
    found = functions()
    return None if found is None else (_address(found[0]), _address(found[1]))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def present() -> Any:
    """This thread's mode, for `take`."""
    mode, found = (ctypes.c_int64 * MODE_WORDS)(), functions()
    if found is not None:
        found[0](mode)
    return mode


def take(mode: Any) -> None:
    """Gives this thread the mode of another."""
    found = functions()
    if found is not None:
        found[1](mode)
