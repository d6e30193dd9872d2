"""Takes arrays' addresses from the arrays themselves, thousands in a call.

Asking NumPy from Python for an array's dtype, shape, flags and address takes a microsecond and more, which is all
that an update of a small tensor may cost. This compiled function reads them from `PyArrayObject`, whose layout
NumPy documents and keeps (numpy.org/doc/stable/reference/c-api/types-and-structures.html), and whose address is
the array's `id`. It accepts an array only if it is exactly a `numpy.ndarray`, of the expected dtype object and
shape, C-contiguous and aligned, the weight writeable and where it was before, the gradient apart from it. Whatever
it doesn't accept goes the slow way through `arrays.py`, which can do more and explains what it refuses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from mxopt.engine.jit import compile_assembly
from mxopt.engine.kernel import EXPECTED, GRAD_IDS, N_TENSORS, POINTERS, WEIGHT_IDS

# Words of a tensor's expectations. ARRAYS is how many pointers a tensor's row in the job's table has.
WEIGHT_DTYPE, GRAD_DTYPE, NDIM, SHAPE, WEIGHT_BYTES, GRAD_BYTES, GRADS, ARRAYS, EXPECTED_WORDS = range(9)

HEAD = object.__basicsize__
TYPE, DATA, ND, DIMENSIONS, DTYPE, FLAGS = HEAD - 8, HEAD, HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400


def _assembly() -> str:
    readable, writeable = CONTIGUOUS | ALIGNED, CONTIGUOUS | ALIGNED | WRITEABLE
    return f"""
define internal i1 @fits(ptr %array, i64 %dtype, i64 %ndim, ptr %shape, i32 %flags) alwaysinline {{
  %type.at = getelementptr i8, ptr %array, i64 {TYPE}
  %type = load i64, ptr %type.at
  %type.ok = icmp eq i64 %type, {id(np.ndarray)}
  br i1 %type.ok, label %layout, label %no
layout:
  %dtype.at = getelementptr i8, ptr %array, i64 {DTYPE}
  %dtype.is = load i64, ptr %dtype.at
  %dtype.ok = icmp eq i64 %dtype.is, %dtype
  %flags.at = getelementptr i8, ptr %array, i64 {FLAGS}
  %flags.are = load i32, ptr %flags.at
  %flags.set = and i32 %flags.are, %flags
  %flags.ok = icmp eq i32 %flags.set, %flags
  %nd.at = getelementptr i8, ptr %array, i64 {ND}
  %nd.32 = load i32, ptr %nd.at
  %nd = sext i32 %nd.32 to i64
  %nd.ok = icmp eq i64 %nd, %ndim
  %some.ok = and i1 %dtype.ok, %flags.ok
  %all.ok = and i1 %some.ok, %nd.ok
  %shape.at = getelementptr i8, ptr %array, i64 {DIMENSIONS}
  %dims = load ptr, ptr %shape.at
  br i1 %all.ok, label %axis, label %no
axis:
  %k = phi i64 [ 0, %layout ], [ %k.next, %same ]
  %end = icmp eq i64 %k, %ndim
  br i1 %end, label %yes, label %compare
compare:
  %has.at = getelementptr i64, ptr %dims, i64 %k
  %has = load i64, ptr %has.at
  %wants.at = getelementptr i64, ptr %shape, i64 %k
  %wants = load i64, ptr %wants.at
  %equal = icmp eq i64 %has, %wants
  br i1 %equal, label %same, label %no
same:
  %k.next = add i64 %k, 1
  br label %axis
yes:
  ret i1 true
no:
  ret i1 false
}}

define i64 @bind(ptr %job) {{
  %w.ids.at = getelementptr i64, ptr %job, i64 {WEIGHT_IDS}
  %w.ids = load ptr, ptr %w.ids.at
  %g.ids.at = getelementptr i64, ptr %job, i64 {GRAD_IDS}
  %g.ids = load ptr, ptr %g.ids.at
  %n.at = getelementptr i64, ptr %job, i64 {N_TENSORS}
  %n = load i64, ptr %n.at
  %expected.at = getelementptr i64, ptr %job, i64 {EXPECTED}
  %expected = load ptr, ptr %expected.at
  %table.at = getelementptr i64, ptr %job, i64 {POINTERS}
  %table = load ptr, ptr %table.at
  br label %tensor
tensor:
  %t = phi i64 [ 0, %0 ], [ %t.next, %done ]
  %end = icmp eq i64 %t, %n
  br i1 %end, label %yes, label %weight
weight:
  %e.offset = mul i64 %t, {EXPECTED_WORDS}
  %e = getelementptr i64, ptr %expected, i64 %e.offset
  {_words("e", WEIGHT_DTYPE, GRAD_DTYPE, NDIM, WEIGHT_BYTES, GRAD_BYTES, GRADS, ARRAYS)}
  %shape.at = getelementptr i64, ptr %e, i64 {SHAPE}
  %shape = load ptr, ptr %shape.at
  %w.id = getelementptr ptr, ptr %w.ids, i64 %t
  %w = load ptr, ptr %w.id
  %w.fits = call i1 @fits(ptr %w, i64 %e{WEIGHT_DTYPE}, i64 %e{NDIM}, ptr %shape, i32 {writeable})
  br i1 %w.fits, label %place, label %no
place:
  %w.data.at = getelementptr i8, ptr %w, i64 {DATA}
  %w.data = load i64, ptr %w.data.at
  %row.offset = mul i64 %t, %e{ARRAYS}
  %row = getelementptr i64, ptr %table, i64 %row.offset
  %w.before = load i64, ptr %row
  %w.there = icmp eq i64 %w.data, %w.before
  br i1 %w.there, label %has.grad, label %no
has.grad:
  %grads = icmp ne i64 %e{GRADS}, 0
  br i1 %grads, label %grad, label %done
grad:
  %g.id = getelementptr ptr, ptr %g.ids, i64 %t
  %g = load ptr, ptr %g.id
  %g.fits = call i1 @fits(ptr %g, i64 %e{GRAD_DTYPE}, i64 %e{NDIM}, ptr %shape, i32 {readable})
  br i1 %g.fits, label %apart, label %no
apart:
  %g.data.at = getelementptr i8, ptr %g, i64 {DATA}
  %g.data = load i64, ptr %g.data.at
  %w.stop = add i64 %w.data, %e{WEIGHT_BYTES}
  %g.stop = add i64 %g.data, %e{GRAD_BYTES}
  %before = icmp ule i64 %w.stop, %g.data
  %after = icmp ule i64 %g.stop, %w.data
  %clear = or i1 %before, %after
  %g.place = getelementptr i64, ptr %row, i64 1
  store i64 %g.data, ptr %g.place
  br i1 %clear, label %done, label %no
done:
  %t.next = add i64 %t, 1
  br label %tensor
yes:
  ret i64 1
no:
  ret i64 0
}}
"""


def _words(base: str, *words: int) -> str:
    """Loads word k of `base` into `%base<k>`."""
    return "\n  ".join(
        f"%{base}{k}.at = getelementptr i64, ptr %{base}, i64 {k}\n  %{base}{k} = load i64, ptr %{base}{k}.at"
        for k in words
    )


@cache
def binder() -> Callable[[int], int]:
    """The function that takes a job's address, writes the gradients' addresses into the job's table, and
    returns whether all arrays were as expected."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(compile_assembly(_assembly(), "bind"))


@cache
def can_read_arrays() -> bool:
    """Whether arrays are laid out as this file believes, by comparing one with what NumPy says of it."""
    sample = np.zeros((3, 5), np.float32)
    here = id(sample)

    def word(offset: int) -> int:
        return int(ctypes.c_int64.from_address(here + offset).value)

    return (
        word(TYPE) == id(np.ndarray)
        and word(DATA) == sample.ctypes.data
        and word(ND) & 0xFFFFFFFF == 2
        and [ctypes.c_int64.from_address(word(DIMENSIONS) + 8 * k).value for k in range(2)] == [3, 5]
        and word(DTYPE) == id(sample.dtype)
        and word(FLAGS) & 0xFFFFFFFF == sample.flags.num
    )
