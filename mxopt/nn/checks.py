"""What arguments must be, in MindSpore's strict reading: where a float is asked for, an int is a TypeError."""

from __future__ import annotations

from typing import Any

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError


def check_floats(owner: str, interval: str, **values: Any) -> None:
    """Each value must be a float within `interval`, written as in mathematics: "[0, 1)", "(0, inf)"."""
    for name, value in values.items():
        if not isinstance(value, float | np.floating):
            raise ArgumentTypeError(f"{owner}: {name} must be a float, got {value!r}")
        check_range(owner, interval, **{name: value})


def check_numbers(owner: str, interval: str, **values: Any) -> None:
    """The same for floats and ints."""
    for name, value in values.items():
        if not isinstance(value, float | int | np.floating | np.integer):
            raise ArgumentTypeError(f"{owner}: {name} must be a float or an int, got {value!r}")
        check_range(owner, interval, **{name: value})


def check_range(owner: str, interval: str, **values: Any) -> None:
    """Each value must lie within `interval`; NaN lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    for name, value in values.items():
        above = low <= value if interval[0] == "[" else low < value
        below = value <= high if interval[-1] == "]" else value < high
        if not (above and below):
            raise ArgumentError(f"{owner}: {name} must be within {interval}, got {value!r}")


def check_positive_ints(owner: str, **values: Any) -> None:
    """Each value must be an int of 1 or more."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise ArgumentTypeError(f"{owner}: {name} must be an int, got {value!r}")
        if value < 1:
            raise ArgumentError(f"{owner}: {name} must be 1 or more, got {value!r}")


def check_bools(owner: str, **values: Any) -> None:
    """Each value must be True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ArgumentTypeError(f"{owner}: {name} must be a bool, got {value!r}")
