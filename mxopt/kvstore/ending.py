"""How a worker's process ends: whether with an exception, and what happens if its last pushes
aren't taken."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

_uncaught: list[str] = []


def watch() -> None:
    """Notes from now on the exception that ends the program. (`sys.last_value` doesn't tell: it is
    also one that an interactive session has survived.)"""
    before: Any = sys.excepthook
    if getattr(before, "notes_uncaught", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _uncaught[:] = [f"{kind.__name__}: {error}"]
        before(kind, error, trace)

    hook.notes_uncaught = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def error() -> str:
    """The exception that has ended the program; "" if it ended normally, or is interactive."""
    return _uncaught[0] if _uncaught and not hasattr(sys, "ps1") else ""


def fail(why: str) -> None:
    """Ends the process, which is in its exit handlers, with `why` and exit code 1; an exception
    would be ignored."""
    print(f"mxopt: {why}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
