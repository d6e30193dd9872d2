"""Warnings that point at the line outside of mxopt that called it, however deep inside mxopt they
are given: that is the line that can be changed."""

from __future__ import annotations

import sys
import warnings

OURS = ("mxopt", "mxopt_server")


def warn(message: str) -> None:
    """Gives a UserWarning at the nearest line outside of mxopt."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
