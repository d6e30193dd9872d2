"""Which library and which device an array belongs to. CuPy isn't imported here: whoever has its arrays has done so."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np


def is_cupy(x: Any) -> bool:
    """Whether `x` is a CuPy array."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, getattr(cupy, "ndarray", ()))


def library_of(x: Any) -> Any:
    """The module with the functions for arrays like `x`: cupy, or numpy."""
    return sys.modules["cupy"] if is_cupy(x) else np


def place_of(x: Any) -> str:
    """Where the array's memory is, in words."""
    return f"GPU {x.device.id}" if is_cupy(x) else "the CPU"


def to_host(x: Any) -> Any:
    """`x` as a NumPy array: itself, or a copy of a CuPy array."""
    return x.get() if is_cupy(x) else np.asarray(x)


def on_device_of(x: Any) -> AbstractContextManager[Any]:
    """Inside a `with` block of it, new CuPy arrays are on the device of `x`."""
    context: AbstractContextManager[Any] = x.device if is_cupy(x) else nullcontext()
    return context
