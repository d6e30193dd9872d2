"""What options may be. A check takes an option's name and value, and returns the value as it is kept, or raises.

ArgumentTypeError (a TypeError and a ValueError) for a wrong type, ArgumentError (a ValueError) for a wrong value.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError

Check = Callable[[str, Any], Any]


def number(name: str, value: Any, nan: bool = False) -> float:
    """Any real number, an array of no axes included, as a float. NaN only if `nan`."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        result = float(value)
    elif getattr(value, "shape", None) is None:
        raise ArgumentTypeError(f"{name} must be a number, got {value!r}")
    elif tuple(value.shape):
        raise ArgumentError(f"{name} must be a single number, got an array of shape {tuple(value.shape)}")
    else:
        result = float(value.item() if hasattr(value, "item") else np.asarray(value))
    if math.isnan(result) and not nan:
        raise ArgumentError(f"{name} is NaN")
    return result


def real(name: str, value: Any) -> float:
    """A float and nothing else, where the documentation is strict."""
    if not isinstance(value, float | np.floating):
        raise ArgumentTypeError(f"{name} must be a float, got {value!r}")
    return number(name, value)


def not_negative(name: str, value: Any) -> float:
    result = number(name, value)
    if not 0 <= result < math.inf:
        raise ArgumentError(f"{name} must {'be finite' if result > 0 else 'not be negative'}, got {value}")
    return result


def positive(name: str, value: Any) -> float:
    result = number(name, value)
    if result <= 0:
        raise ArgumentError(f"{name} must be above 0, got {value}")
    return result


def fraction(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    result = number(name, value)
    if not 0 <= result <= 1:
        raise ArgumentError(f"{name} must be within [0, 1], got {value}")
    return result


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def pair(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list | np.ndarray) or np.shape(value) != (2,):
        raise ArgumentTypeError(f"{name} must be a pair of numbers, got {value!r}")
    return number(f"{name}[0]", value[0]), number(f"{name}[1]", value[1])


def betas(name: str, value: Any) -> tuple[float, float]:
    first, second = pair(name, value)
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ArgumentError(f"{name} must be within [0, 1), got {value}")
    return first, second


def etas(name: str, value: Any) -> tuple[float, float]:
    shrink, grow = pair(name, value)
    if not 0 < shrink <= 1 <= grow:
        raise ArgumentError(f"{name} must be a pair (a, b) with 0 < a <= 1 <= b, got {value}")
    return shrink, grow


def step_sizes(name: str, value: Any) -> tuple[float, float]:
    smallest, biggest = pair(name, value)
    if not 0 <= smallest <= biggest:
        raise ArgumentError(f"{name} must be a pair (a, b) with 0 <= a <= b, got {value}")
    return smallest, biggest


CHECKS: Mapping[str, Check] = {
    "alpha": not_negative,
    "amsgrad": flag,
    "betas": betas,
    "centered": flag,
    "dampening": number,
    "eps": not_negative,
    "etas": etas,
    "initial_accumulator_value": not_negative,
    "initial_lr": not_negative,
    "lambd": real,
    "lazy_update": flag,
    "lr": not_negative,
    "lr_decay": not_negative,
    "maximize": flag,
    "momentum": not_negative,
    "momentum_decay": not_negative,
    "nesterov": flag,
    "rho": fraction,
    "step_sizes": step_sizes,
    "t0": real,
    "weight_decay": not_negative,
}
