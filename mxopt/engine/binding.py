"""Takes arrays' addresses from the arrays themselves, thousands in a call.

Asking NumPy from Python for an array's dtype, shape, flags and address takes a microsecond and
more, which is all that an update of a small tensor may cost. This compiled function reads them from
`PyArrayObject`, whose layout NumPy documents and keeps
(numpy.org/doc/stable/reference/c-api/types-and-structures.html), and whose address is the array's
`id`. It accepts an array only if it is exactly a `numpy.ndarray`, of the expected dtype object and
shape, C-contiguous and aligned, the weight writeable and where it was before, the gradient nowhere
in the memory that the call writes: where it was before, or found apart from it by bisection.
Whatever it doesn't accept goes the slow way through `arrays.py`, which can do more and explains
what it refuses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from mxopt.assembler import compile_assembly
from mxopt.engine.kernel import (
    EXPECTED,
    GRAD_IDS,
    INDICES,
    N_TAKEN,
    N_TENSORS,
    POINTERS,
    TAKEN,
    WEIGHT_IDS,
)

# Words of a tensor's expectations. GRAD_BYTES are those of one row where the gradient is
# row-sparse, ARRAYS is how many pointers a tensor's row in the job's table has, PLACED whether the
# indices are known to be sound, in whatever order.
WEIGHT_DTYPE, GRAD_DTYPE, NDIM, SHAPE, GRAD_BYTES, ARRAYS, PLACED, EXPECTED_WORDS = range(8)

HEAD = object.__basicsize__
TYPE, DATA, ND, DIMENSIONS, DTYPE, FLAGS = HEAD - 8, HEAD, HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
THEIRS, OURS = CONTIGUOUS | ALIGNED, CONTIGUOUS | ALIGNED | WRITEABLE  # a gradient's flags, a weight's
INT64 = np.dtype(np.int64)


def _checks() -> str:
    """What both functions below ask of arrays. `fits` compares the shape from axis `first` on."""
    return f"""
define internal i1 @fits(ptr %array, i64 %dtype, i64 %ndim, ptr %shape, i64 %first, i32 %flags) alwaysinline {{
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
  %k = phi i64 [ %first, %layout ], [ %k.next, %same ]
  %end = icmp sge i64 %k, %ndim
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

define internal i1 @in_place(ptr %w, ptr %e, ptr %row) alwaysinline {{
  {_words("e", WEIGHT_DTYPE, NDIM, SHAPE)}
  %shape = inttoptr i64 %e{SHAPE} to ptr
  %fits = call i1 @fits(ptr %w, i64 %e{WEIGHT_DTYPE}, i64 %e{NDIM}, ptr %shape, i64 0, i32 {OURS})
  br i1 %fits, label %place, label %no
place:
  %data.at = getelementptr i8, ptr %w, i64 {DATA}
  %data = load i64, ptr %data.at
  %before = load i64, ptr %row
  %there = icmp eq i64 %data, %before
  ret i1 %there
no:
  ret i1 false
}}

define internal i1 @clear(ptr %job, i64 %g, i64 %g.bytes) alwaysinline {{
  {_words("job", TAKEN, N_TAKEN)}
  %taken = inttoptr i64 %job{TAKEN} to ptr
  %g.stop = add i64 %g, %g.bytes
  br label %search
search:
  %low = phi i64 [ 0, %0 ], [ %low.next, %halve ]
  %rest = phi i64 [ %job{N_TAKEN}, %0 ], [ %rest.next, %halve ]
  %found = icmp eq i64 %rest, 0
  br i1 %found, label %here, label %halve
halve:
  %half = lshr i64 %rest, 1
  %middle = add i64 %low, %half
  %stop.word = shl i64 %middle, 1
  %start.at = getelementptr i64, ptr %taken, i64 %stop.word
  %stop.at = getelementptr i64, ptr %start.at, i64 1
  %stop = load i64, ptr %stop.at
  %before = icmp ule i64 %stop, %g
  %above = add i64 %middle, 1
  %low.next = select i1 %before, i64 %above, i64 %low
  %less = sub i64 %rest, %half
  %upper = sub i64 %less, 1
  %rest.next = select i1 %before, i64 %upper, i64 %half
  br label %search
here:
  %last = icmp eq i64 %low, %job{N_TAKEN}
  br i1 %last, label %yes, label %compare
compare:
  %first.word = shl i64 %low, 1
  %first.at = getelementptr i64, ptr %taken, i64 %first.word
  %first = load i64, ptr %first.at
  %after = icmp ule i64 %g.stop, %first
  ret i1 %after
yes:
  ret i1 true
}}
"""


def _bind() -> str:
    return f"""
define i64 @bind(ptr %job) {{
  {_words("job", WEIGHT_IDS, GRAD_IDS, N_TENSORS, EXPECTED, POINTERS)}
  %w.ids = inttoptr i64 %job{WEIGHT_IDS} to ptr
  %g.ids = inttoptr i64 %job{GRAD_IDS} to ptr
  %expected = inttoptr i64 %job{EXPECTED} to ptr
  %table = inttoptr i64 %job{POINTERS} to ptr
  br label %tensor
tensor:
  %t = phi i64 [ 0, %0 ], [ %t.next, %next ]
  %end = icmp eq i64 %t, %job{N_TENSORS}
  br i1 %end, label %yes, label %weight
weight:
  %e.offset = mul i64 %t, {EXPECTED_WORDS}
  %e = getelementptr i64, ptr %expected, i64 %e.offset
  {_words("e", GRAD_DTYPE, NDIM, SHAPE, GRAD_BYTES, ARRAYS)}
  %row.offset = mul i64 %t, %e{ARRAYS}
  %row = getelementptr i64, ptr %table, i64 %row.offset
  %w.id = getelementptr ptr, ptr %w.ids, i64 %t
  %w = load ptr, ptr %w.id
  %w.fits = call i1 @in_place(ptr %w, ptr %e, ptr %row)
  br i1 %w.fits, label %grad, label %no
grad:
  %g.id = getelementptr ptr, ptr %g.ids, i64 %t
  %g = load ptr, ptr %g.id
  %shape = inttoptr i64 %e{SHAPE} to ptr
  %g.fits = call i1 @fits(ptr %g, i64 %e{GRAD_DTYPE}, i64 %e{NDIM}, ptr %shape, i64 0, i32 {THEIRS})
  br i1 %g.fits, label %done, label %no
done:
  %g.data.at = getelementptr i8, ptr %g, i64 {DATA}
  %g.data = load i64, ptr %g.data.at
  %g.place = getelementptr i64, ptr %row, i64 1
  %g.before = load i64, ptr %g.place
  %same = icmp eq i64 %g.data, %g.before
  br i1 %same, label %next, label %elsewhere
elsewhere:
  %clear = call i1 @clear(ptr %job, i64 %g.data, i64 %e{GRAD_BYTES})
  br i1 %clear, label %place, label %no
place:
  store i64 %g.data, ptr %g.place
  br label %next
next:
  %t.next = add i64 %t, 1
  br label %tensor
yes:
  ret i64 1
no:
  ret i64 0
}}
"""


def _bind_rows() -> str:
    """The one tensor's weight, then its gradient's data and indices, which must be ascending and
    within the shape, unless they are PLACED."""
    return f"""
define i64 @bind_rows(ptr %job) {{
  {_words("job", WEIGHT_IDS, EXPECTED, POINTERS)}
  %ids = inttoptr i64 %job{WEIGHT_IDS} to ptr
  %e = inttoptr i64 %job{EXPECTED} to ptr
  %table = inttoptr i64 %job{POINTERS} to ptr
  {_words("e", GRAD_DTYPE, NDIM, SHAPE, GRAD_BYTES, PLACED)}
  {_words("ids", 0, 1, 2)}
  %shape = inttoptr i64 %e{SHAPE} to ptr
  %w = inttoptr i64 %ids0 to ptr
  %w.fits = call i1 @in_place(ptr %w, ptr %e, ptr %table)
  br i1 %w.fits, label %indices, label %no
indices:
  %i = inttoptr i64 %ids2 to ptr
  %i.fits = call i1 @fits(ptr %i, i64 {id(INT64)}, i64 1, ptr %shape, i64 1, i32 {THEIRS})
  br i1 %i.fits, label %data, label %no
data:
  %g = inttoptr i64 %ids1 to ptr
  %g.fits = call i1 @fits(ptr %g, i64 %e{GRAD_DTYPE}, i64 %e{NDIM}, ptr %shape, i64 1, i32 {THEIRS})
  br i1 %g.fits, label %lengths, label %no
lengths:
  %i.dims.at = getelementptr i8, ptr %i, i64 {DIMENSIONS}
  %i.dims = load ptr, ptr %i.dims.at
  %rows = load i64, ptr %i.dims
  %g.dims.at = getelementptr i8, ptr %g, i64 {DIMENSIONS}
  %g.dims = load ptr, ptr %g.dims.at
  %g.rows = load i64, ptr %g.dims
  %match = icmp eq i64 %rows, %g.rows
  br i1 %match, label %place, label %no
place:
  %g.data.at = getelementptr i8, ptr %g, i64 {DATA}
  %g.data = load i64, ptr %g.data.at
  %g.bytes = mul i64 %rows, %e{GRAD_BYTES}
  %g.clear = call i1 @clear(ptr %job, i64 %g.data, i64 %g.bytes)
  %i.data.at = getelementptr i8, ptr %i, i64 {DATA}
  %i.data = load ptr, ptr %i.data.at
  %i.at = ptrtoint ptr %i.data to i64
  %i.bytes = shl i64 %rows, 3
  %i.clear = call i1 @clear(ptr %job, i64 %i.at, i64 %i.bytes)
  %clear = and i1 %g.clear, %i.clear
  br i1 %clear, label %look.first, label %no
look.first:
  %placed = icmp ne i64 %e{PLACED}, 0
  br i1 %placed, label %yes, label %next
next:
  %k = phi i64 [ 0, %look.first ], [ %k.next, %ascending ]
  %before = phi i64 [ -1, %look.first ], [ %index, %ascending ]
  %end = icmp eq i64 %k, %rows
  br i1 %end, label %last, label %look
look:
  %index.at = getelementptr i64, ptr %i.data, i64 %k
  %index = load i64, ptr %index.at
  %larger = icmp sgt i64 %index, %before
  br i1 %larger, label %ascending, label %no
ascending:
  %k.next = add i64 %k, 1
  br label %next
last:
  %table.rows = load i64, ptr %shape
  %within = icmp slt i64 %before, %table.rows
  br i1 %within, label %yes, label %no
yes:
  %g.place = getelementptr i64, ptr %table, i64 1
  store i64 %g.data, ptr %g.place
  %i.place = getelementptr ptr, ptr %job, i64 {INDICES}
  store ptr %i.data, ptr %i.place
  ret i64 %rows
no:
  ret i64 -1
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
    """The function that takes a job's address, writes the gradients' addresses into the job's
    table, and returns whether all arrays were as expected."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(compile_assembly(_checks() + _bind(), "bind"))


@cache
def row_binder() -> Callable[[int], int]:
    """The same for a row-sparse gradient: WEIGHT_IDS says where the ids of weight, data and indices
    are. Returns how many rows there are, or -1."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(compile_assembly(_checks() + _bind_rows(), "bind_rows"))


@cache
def can_read_arrays() -> bool:
    """Whether arrays are laid out as this file believes, by comparing one with what NumPy says of
    it."""
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
