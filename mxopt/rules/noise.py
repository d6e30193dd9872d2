"""Standard normal noise that nothing keeps: 32 random bits of an element, made a number by exact
operations only.

One bit is the sign, the others a number n; n / 2**33 is the probability of a number that is farther
out. Which number that is, is a rational function of the root of -2 log(n / 2**33): within 3e-7 of
the inverse of the normal distribution function, up to 6.76 on both sides, and so within float32's
own rounding nearly everywhere.
"""

from __future__ import annotations

import numpy as np

from mxopt.rules.words import random_bits

# Of log(x + 1.5) from -0.5 to 0.5, by powers of x: interpolated at Chebyshev's points, within 4e-8.
LOGARITHM = (
    0.4054651081081642, 0.6666661755433716, -0.2222219263878985, 0.09879144544904198, -0.04939838362982907,
    0.025969792103051764, -0.014410552892181983, 0.01023817975208955, -0.006006605050865348,
)  # fmt: skip
# Of root - number, by powers of the root: fitted with the largest error as the measure.
OVER = (3.103555929414205, 6.807324184418429, 1.182225035325797, 0.0060223558485987105)
UNDER = (1.0, 4.533442700757208, 2.9439441104251607, 0.26017216620002925)


def drawn(weyl, key):
    """Words: 2 n + 1 below 2**32, and 0 or 1 for the side. Other bits than those of rounding."""
    bits = random_bits(weyl, key ^ 0x6A09E667)
    return (bits << 1) | 1, bits >> 31


def parted(bits):
    """Words: of the bits of a positive float32 its exponent, and the bits of its mantissa as one
    from 1 to 2."""
    return bits >> 23, (bits & 0x7FFFFF) | 0x3F800000


def normal(exponent, mantissa, side):
    """The number, of what `drawn` says as real numbers."""
    root = np.sqrt(2 * ((160 - exponent) * 0.6931471805599453 - _polynomial(LOGARITHM, mantissa - 1.5)))
    number = root - _polynomial(OVER, root) / _polynomial(UNDER, root)
    return np.where(side > 0.5, -number, number)


def _polynomial(coefficients, x):
    *lower, value = coefficients
    for coefficient in reversed(lower):
        value = value * x + coefficient
    return value
