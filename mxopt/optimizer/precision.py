"""Scalars in the precision of an update's arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mxopt.errors import ArgumentError

Real = Callable[[float], Any]  # the arithmetic's type: numpy.float32 or numpy.float64

SPLIT = 2.0**29 + 1  # with u = x * SPLIT, u - (u - x) is x rounded to float32 (Veltkamp); NumPy takes ten times as long


@lru_cache(maxsize=256)
def betas_in(real: Real, beta1: float, beta2: float) -> tuple[float, float]:
    """The decays of running means, rounded to this type of arithmetic.

    In float32, 1 - 0.999 has a relative error of 1.3e-5, and so has a running mean square.
    Dividing by a correction with the same error makes it right.
    """
    return float(real(beta1)), float(real(beta2))


def corrections(real: Real, beta1: float, beta2: float, t: int) -> tuple[float, float]:
    """1 - beta1^t and 1 - beta2^t, in double, of betas rounded to this type of arithmetic. Raises
    ArgumentError if one is 0: it is divided by."""
    a, b = betas_in(real, beta1, beta2)
    c1, c2 = 1 - a**t, 1 - b**t
    if not (c1 and c2):
        raise told_from_one(beta1, beta2, real)
    return c1, c2


def told_from_one(beta1: float, beta2: float, real: Any) -> ArgumentError:
    """The error for a correction of 0."""
    return ArgumentError(f"betas {beta1, beta2} can't be told from 1 in {real.__name__}")
