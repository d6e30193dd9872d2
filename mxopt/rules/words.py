"""Random bits that nothing keeps: a hash of where an element is. Functions of whole numbers of 32 bits without a sign.

Written with NumPy like rules, for arrays of uint32; engines trace them as tapes of words.
"""

from __future__ import annotations

from typing import Any


def mixed(x: Any) -> Any:
    """32 bits of which each depends on all of `x`, another value for another `x`: rounds of xor, shift and multiply.

    The constants were found by the search of https://github.com/skeeto/hash-prospector.
    """
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD
    x = x ^ (x >> 15)
    x = x * 0x735A2D97
    return x ^ (x >> 15)


def random_bits(place: Any, key: Any) -> Any:
    """32 random bits of element `place` under `key`.

    Keys that are near each other give bits that belong together, so keys are mixed before.
    """
    return mixed(place * 0x9E3779B1 ^ key)
