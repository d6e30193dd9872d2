"""The library and the device of an array. CuPy is never imported here: whoever has its arrays has
imported it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from mxopt.errors import ArrayTypeError
from mxopt.typing import Array

# By name, since importing numpy.ma would add a tenth to the time of importing mxopt.
INSTEAD: dict[str, str] = {
    "MaskedArray": "x.filled(0), or x.data where the mask doesn't matter",
    "matrix": "np.asarray(x), in which axes and * mean what they do elsewhere",
}


def is_cupy(x: object) -> bool:
    """Whether `x` is a CuPy array."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, getattr(cupy, "ndarray", ()))


def library_of(x: object) -> Any:
    """The module whose functions take arrays like `x`: cupy or numpy."""
    return sys.modules["cupy"] if is_cupy(x) else np


def place_of(x: Array) -> str:
    """The device of the array's memory, in words."""
    return f"GPU {x.device.id}" if is_cupy(x) else "the CPU"


def to_host(x: Array) -> Array:
    """`x` as a NumPy array: itself, or a copy of a CuPy array."""
    return x.get() if is_cupy(x) else np.asarray(x)


def on_device_of(x: Array) -> AbstractContextManager[object]:
    """A context in which new CuPy arrays are on the device of `x`."""
    context: AbstractContextManager[object] = x.device if is_cupy(x) else nullcontext()
    return context


def stream_of(x: Array) -> AbstractContextManager[object]:
    """The stream that this thread uses for arrays like `x`, as a context in which another thread
    uses it too."""
    context: AbstractContextManager[object] = library_of(x).cuda.get_current_stream() if is_cupy(x) else nullcontext()
    return context


def check_bare(x: np.ndarray, name: str) -> None:
    """Raises ArrayTypeError if `x` is of a subclass of NumPy's array, which may mean more (a mask,
    a unit) than the numbers in its memory. `name` is what the error calls it."""
    if isinstance(x, np.ndarray) and type(x) not in (np.ndarray, np.memmap):
        kind = type(x)
        known = [each.__name__ for each in kind.__mro__ if each.__module__.startswith("numpy")]
        instead = next((INSTEAD[name] for name in known if name in INSTEAD), "np.asarray(x), if that is all")
        raise ArrayTypeError(
            f"{name}: a {kind.__module__}.{kind.__qualname__} may mean more than the numbers in its memory, and only"
            f" those are used: give {instead}"
        )
