"""Pieces that several rules use."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

# Why the states of some rules need all their bits.
COPY = "one of them is a copy of the weight, and would lose what an update changes"
DIFFERENCE = "their difference is nearly nothing, and may fall below it"
RECOMPUTED = "the weight is made of them anew at each update, and would be as coarse as they are"


def clip(x, bound):
    """`x` limited to [-bound, bound]. NaN stays NaN, and an infinite bound changes nothing."""
    return np.where(x > bound, bound, np.where(x < -bound, -bound, x))


def within(x, low, high):
    """`x` limited to [low, high]. NaN stays NaN."""
    x = np.where(x < low, low, x)
    return np.where(x > high, high, x)


def larger(a, b):
    """The larger of two numbers; NaN where one is."""
    return np.where(np.logical_or(a > b, a != a), a, b)


def sign(x, size):
    """`size` with the sign of `x`; 0 where `x` is 0 or NaN, which a rule must not hide."""
    return np.where(x > 0, size, np.where(x < 0, -size, 0 * size))


def norm(squares: Iterable[float]) -> float:
    """The Euclidean norm from the sums of squares of pieces; rounded once, so in whatever order
    they come."""
    try:
        return math.sqrt(math.fsum(squares))
    except OverflowError:  # no piece is infinite, but their sum is
        return math.inf
