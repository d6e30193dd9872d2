"""Numbers as the arithmetic of an update has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

Real = Callable[[float], Any]  # the arithmetic's type: numpy.float32 or numpy.float64

SPLIT = 2.0**29 + 1  # with u = x * SPLIT, u - (u - x) is x rounded to float32 (Veltkamp); NumPy takes ten times as long


@lru_cache(maxsize=256)
def betas_in(real: Real, beta1: float, beta2: float) -> tuple[float, float]:
    """The decays of running means as arithmetic of this type has them.

    In float32 1 - 0.999 is 1.3e-5 off. So is a running mean square by it, and divided by a
    correction that is off by as much it comes out right.
    """
    return float(real(beta1)), float(real(beta2))


def corrections(real: Real, beta1: float, beta2: float, t: int) -> tuple[float, float]:
    """1 - beta1^t and 1 - beta2^t, in double, of the betas as arithmetic of this type has them."""
    beta1, beta2 = betas_in(real, beta1, beta2)
    return 1 - beta1**t, 1 - beta2**t
