"""Random bits that nothing keeps: a hash of where an element is. Functions of whole numbers of 32
bits without a sign.

Written with NumPy like rules, for arrays of uint32; engines trace them as tapes of words.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mxopt.rules.rule import Function


def mixed(x):
    """32 bits of which each depends on all of `x`, another value for another `x`: rounds of xor,
    shift and multiply.

    The constants were found by the search of https://github.com/skeeto/hash-prospector.
    """
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD
    x = x ^ (x >> 15)
    x = x * 0x735A2D97
    return x ^ (x >> 15)


WEYL = 0x9E3779B1  # odd, near 2**32 over the golden ratio: its multiples, modulo 2**32, are all words, and far apart


def random_bits(weyl, key):
    """32 random bits of an element under `key`; `weyl` is the number of the element times WEYL.

    Keys that are near each other give bits that belong together, so keys are mixed before.
    """
    return mixed(weyl ^ key)


@cache
def share(number: int) -> Function:
    """A function of `random_bits`' arguments: the 16 random bits by which array `number` of a
    parameter is rounded.

    Two arrays have the halves of 32 bits, the next two those of 32 bits more.
    """

    def bits(weyl, key):
        found = random_bits(weyl, key)
        for _ in range(number // 2):
            found = mixed(found + 0x9E3779B9)
        return found & 0xFFFF if number % 2 else found >> 16

    return bits


def bfloat16_of(bits, share, nan):
    """The bits of a float32, rounded to those of a bfloat16: up with the probability that makes the
    mean right.

    `share` is 16 random bits. What a bfloat16 can hold stays as it is, infinities too, and where
    `nan` says that it is one, a NaN.
    """
    return np.where(nan, 0x7FC00000, bits + share) >> 16
