"""Operations on words of 32 bits: the same in NumPy, in a kernel and in CUDA C; and what is asked
of the hash."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from mxopt.assembler import compile_assembly
from mxopt.engine.assembly import LANES, Assembly
from mxopt.engine.trace import trace
from mxopt.errors import RuleError
from mxopt.rules.words import WEYL, mixed, random_bits


def everything(x: Any, y: Any) -> Any:
    """Uses every operation that there is, and numbers above 2**31."""
    some = np.where(np.greater(x, y), x + y, (x * 0xFFFFFFFB) & y)
    return np.where(np.less(some, 0x80000001), some | (x << 3), some ^ (y >> 7))


def in_a_kernel(function: Any, *arguments: np.ndarray) -> np.ndarray:
    """What LLVM makes of it, for one vector."""
    asm, out = Assembly("float32"), np.zeros(LANES, np.uint32)
    asm.label("entry")
    given = [asm.let(f"load {asm.vec('i32')}, ptr %p{k}, align 4") for k in range(len(arguments))]
    (result,) = asm.run_words(trace(function, words=True), given)
    asm.put(f"store {asm.vec('i32')} {result}, ptr %out, align 4")
    asm.put("ret void")
    names = ", ".join(f"ptr %{name}" for name in [*(f"p{k}" for k in range(len(arguments))), "out"])
    module = "\n".join([*sorted(asm.declarations), f"define void @words({names}) {{", *asm.lines, "}", ""])
    addresses = [array.ctypes.data for array in (*arguments, out)]
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(addresses))(compile_assembly(module, "words"))(*addresses)
    return out


@pytest.mark.parametrize("function", [everything, random_bits], ids=lambda f: f.__name__)
def test_words_are_the_same_in_a_kernel(function: Any) -> None:
    x, y = np.random.default_rng(1).integers(0, 2**32, (2, LANES), np.uint32)
    x[:3], y[:3] = (0, 2**32 - 1, 2**31), (2**32 - 1, 0, 2**31)
    np.testing.assert_array_equal(in_a_kernel(function, x, y), function(x, y))


def test_a_tape_of_words_says_what_it_cannot_do() -> None:
    with pytest.raises(RuleError, match=r"can't use np\.divide on words, .* The table has add, bitwise_and"):
        trace(lambda x: x / 2, words=True)


def test_the_hash_is_another_value_for_another_place() -> None:
    bits = mixed(np.arange(2**20, dtype=np.uint32))
    assert len(np.unique(bits)) == len(bits)


@pytest.mark.parametrize("lag", [1, 2, 16, 256, 4096])
def test_bits_of_neighbours_have_nothing_to_do_with_each_other(lag: int) -> None:
    n = 2**20
    for key in map(np.uint32, (0, 1, 0x9E3779B1, 0xDEADBEEF)):
        bits = random_bits(np.arange(n, dtype=np.uint32) * np.uint32(WEYL), key)
        for half in (bits >> 16, bits & 0xFFFF):
            x = half / 32768 - 1 + 1 / 65536
            assert abs(x.mean()) < 5 / np.sqrt(3 * n)  # of uniform numbers: variance 1/3
            assert abs((x[lag:] * x[:-lag]).mean()) < 5 / 3 / np.sqrt(n - lag)
        assert abs(np.corrcoef(bits >> 16, bits & 0xFFFF)[0, 1]) < 5 / np.sqrt(n)
