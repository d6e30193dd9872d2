"""The noise of `rules/noise.py`, for whole arrays and for a kernel's vectors."""

from __future__ import annotations

import numpy as np

from mxopt.engine.assembly import Assembly
from mxopt.engine.rounding import Rounding, UpdateKeys
from mxopt.engine.trace import trace
from mxopt.rules.noise import drawn, normal, parted


def whole(of: Rounding, weyl: np.ndarray, real: type[np.floating]) -> np.ndarray:
    """The noise of elements, of the dtype `real`; `weyl` are the elements' numbers times WEYL."""
    with np.errstate(over="ignore"):  # NumPy warns of words without axes
        number, side = drawn(weyl, np.uint32(UpdateKeys([of]).now()[0]))
    exponent, mantissa = parted(np.asarray(number).astype(np.float32).view(np.uint32))
    found: np.ndarray = normal(exponent.astype(real), mantissa.view(np.float32).astype(real), side.astype(real))
    return found


def vector(asm: Assembly, weyl: str, key: str) -> str:
    """Writes the same for a vector of words."""
    ints, floats = asm.vec("i32"), asm.vec("float")
    number, side = asm.run_words(trace(drawn, words=True), [weyl, key])
    number = asm.let(f"uitofp {ints} {number} to {floats}")
    bits = asm.let(f"bitcast {floats} {number} to {ints}")
    exponent, mantissa = asm.run_words(trace(parted, words=True), [bits])
    mantissa = asm.let(f"bitcast {ints} {mantissa} to {floats}")
    if asm.real != "float":
        mantissa = asm.let(f"fpext {floats} {mantissa} to {asm.vec(asm.real)}")
    exponent, side = (asm.let(f"uitofp {ints} {x} to {asm.vec(asm.real)}") for x in (exponent, side))
    return asm.run(trace(normal), [exponent, mantissa, side])[0]
