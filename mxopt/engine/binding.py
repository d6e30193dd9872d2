"""Reads the addresses of arrays from the arrays themselves, thousands in a call.

Asking NumPy from Python for an array's dtype, shape, flags and address takes more than a
microsecond, which is all that an update of a small tensor may cost. These compiled functions read
them from `PyArrayObject`, whose layout NumPy documents and keeps
(numpy.org/doc/stable/reference/c-api/types-and-structures.html), and whose address is the array's
`id`. They accept an array only if it is exactly a `numpy.ndarray` of the expected dtype object and
shape, C-contiguous and aligned; a weight only if it is writeable and at its former address; a
gradient only if it lies outside the memory that the call writes: at its former address, or checked
by bisection. Anything else takes the slow way through `arrays.py`, which can do more and explains
what it refuses.

A job belongs to one thread from its binding to the end of its run. Another thread that comes for
the same weight meanwhile isn't accepted either, and makes a job of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from mxopt.assembler import Lines, compile_assembly
from mxopt.engine import team
from mxopt.engine.kernel import (
    EXPECTED,
    GRAD_IDS,
    INDICES,
    N_TAKEN,
    N_TENSORS,
    OWNER,
    POINTERS,
    TAKEN,
    WEIGHT_IDS,
)

# Words of what is expected of a tensor. GRAD_BYTES is the size of a gradient, of one row if it is
# row-sparse; ARRAYS the number of pointers that the tensor has in the job's table; PLACED whether
# its indices needn't be checked.
WEIGHT_DTYPE, GRAD_DTYPE, NDIM, SHAPE, GRAD_BYTES, ARRAYS, PLACED, EXPECTED_WORDS = range(8)

HEAD = object.__basicsize__
TYPE, DATA, ND, DIMENSIONS, DTYPE, FLAGS = HEAD - 8, HEAD, HEAD + 8, HEAD + 16, HEAD + 40, HEAD + 48
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
THEIRS, OURS = CONTIGUOUS | ALIGNED, CONTIGUOUS | ALIGNED | WRITEABLE  # a gradient's flags, a weight's
INT64 = np.dtype(np.int64)


def _field(asm: Lines, array: str, offset: int, type: str = "i64") -> str:
    return asm.let(f"load {type}, ptr {asm.at('i8', array, offset)}")


def _equal(asm: Lines, a: str, b: str | int, type: str = "i64") -> str:
    return asm.let(f"icmp eq {type} {a}, {b}")


def _write_checks(asm: Lines) -> None:
    """The checks that all functions below share. `fits` compares the shape from axis `first` on."""
    head = "i1 @fits(ptr %array, i64 %dtype, i64 %ndim, ptr %shape, i64 %first, i32 %flags)"
    with asm.function(f"internal {head}"):
        asm.demand(_equal(asm, _field(asm, "%array", TYPE), id(np.ndarray)), "no")
        dtype = _equal(asm, _field(asm, "%array", DTYPE), "%dtype")
        flags = asm.let(f"and i32 {_field(asm, '%array', FLAGS, 'i32')}, %flags")
        axes = asm.let(f"sext i32 {_field(asm, '%array', ND, 'i32')} to i64")
        some = asm.let(f"and i1 {dtype}, {_equal(asm, flags, '%flags', 'i32')}")
        asm.demand(asm.let(f"and i1 {some}, {_equal(asm, axes, '%ndim')}"), "no")
        dims = _field(asm, "%array", DIMENSIONS, "ptr")
        with asm.loop("axis", ("i64", "%first")) as (loop, k):
            loop.until(asm.let(f"icmp sge i64 {k}, %ndim"))
            asm.demand(_equal(asm, asm.word(dims, k), asm.word("%shape", k)), "no")
            loop.again(asm.let(f"add i64 {k}, 1"))
        asm.put("ret i1 true")
        asm.label("no")
        asm.put("ret i1 false")

    with asm.function("internal i1 @in_place(ptr %w, ptr %e, ptr %row)"):
        asm.demand(_fits(asm, "%w", asm.word("%e", WEIGHT_DTYPE), "%e", 0, OURS), "no")
        asm.put(f"ret i1 {_equal(asm, _field(asm, '%w', DATA), asm.word('%row', 0))}")
        asm.label("no")
        asm.put("ret i1 false")

    with asm.function("internal i1 @clear(ptr %job, i64 %g, i64 %g.bytes)"):
        taken, number, end = asm.pointer("%job", TAKEN), asm.word("%job", N_TAKEN), asm.let("add i64 %g, %g.bytes")
        with asm.loop("search", ("i64", "0"), ("i64", number)) as (loop, low, rest):
            loop.until(_equal(asm, rest, 0))
            half = asm.let(f"lshr i64 {rest}, 1")
            middle = asm.let(f"add i64 {low}, {half}")
            stop = asm.word(asm.at("i64", taken, asm.let(f"shl i64 {middle}, 1")), 1)
            before = asm.let(f"icmp ule i64 {stop}, %g")
            above, less = asm.let(f"add i64 {middle}, 1"), asm.let(f"sub i64 {rest}, {half}")
            loop.again(
                asm.let(f"select i1 {before}, i64 {above}, i64 {low}"),
                asm.let(f"select i1 {before}, i64 {asm.let(f'sub i64 {less}, 1')}, i64 {half}"),
            )
        asm.demand(asm.let(f"icmp ne i64 {low}, {number}"), "yes")
        first = asm.word(taken, asm.let(f"shl i64 {low}, 1"))
        asm.put(f"ret i1 {asm.let(f'icmp ule i64 {end}, {first}')}")
        asm.label("yes")
        asm.put("ret i1 true")


def _fits(asm: Lines, array: str, dtype: str | int, expected: str, first: int, flags: int) -> str:
    ndim, shape = asm.word(expected, NDIM), asm.pointer(expected, SHAPE)
    given = f"ptr {array}, i64 {dtype}, i64 {ndim}, ptr {shape}, i64 {first}, i32 {flags}"
    return asm.let(f"call i1 @fits({given})")


def _own(asm: Lines) -> None:
    """Makes the job this thread's. The interpreter lock is held, so this needs no atomic step."""
    kind = f"i{8 * ctypes.sizeof(ctypes.c_ulong)}"
    me = asm.let(f"call {kind} inttoptr (i64 {team.python('PyThread_get_thread_ident')} to ptr)()")
    me = me if kind == "i64" else asm.let(f"zext {kind} {me} to i64")
    place = asm.at("i64", "%job", OWNER)
    owner = asm.let(f"load atomic i64, ptr {place} acquire, align 8")
    asm.demand(asm.let(f"or i1 {_equal(asm, owner, 0)}, {_equal(asm, owner, me)}"), "no")
    asm.put(f"store i64 {me}, ptr {place}")


def _clear(asm: Lines, address: str, size: str) -> str:
    return asm.let(f"call i1 @clear(ptr %job, i64 {address}, i64 {size})")


def _write_bind(asm: Lines, name: str = "bind") -> None:
    """`bind` of arrays, `bind_lists` of two arrays of these, or `bind_places` of addresses of
    gradients."""
    placed = name == "bind_places"
    with asm.function(f"i64 @{name}(ptr %job{', ptr %places' * placed})"):
        for word in (WEIGHT_IDS, GRAD_IDS) if name == "bind_lists" else ():
            data = _field(asm, asm.pointer("%job", word), DATA)
            asm.put(f"store i64 {data}, ptr {asm.at('i64', '%job', word)}")
        _own(asm)
        weights, grads, expected, table = (asm.pointer("%job", w) for w in (WEIGHT_IDS, GRAD_IDS, EXPECTED, POINTERS))
        number = asm.word("%job", N_TENSORS)
        with asm.loop("tensor", ("i64", "0")) as (loop, t):
            loop.until(_equal(asm, t, number))
            e = asm.at("i64", expected, asm.let(f"mul i64 {t}, {EXPECTED_WORDS}"))
            own = asm.at("i64", table, asm.let(f"mul i64 {t}, {asm.word(e, ARRAYS)}"))
            if placed:
                data = asm.word("%places", t)
            else:
                w, g = asm.pointer(weights, t), asm.pointer(grads, t)
                asm.demand(asm.let(f"call i1 @in_place(ptr {w}, ptr {e}, ptr {own})"), "no")
                asm.demand(_fits(asm, g, asm.word(e, GRAD_DTYPE), e, 0, THEIRS), "no")
                data = _field(asm, g, DATA)
            place = asm.at("i64", own, 1)

            def elsewhere(e: str = e, data: str = data, place: str = place) -> None:
                asm.demand(_clear(asm, data, asm.word(e, GRAD_BYTES)), "no")
                asm.put(f"store i64 {data}, ptr {place}")

            asm.when(asm.let(f"icmp ne i64 {data}, {asm.let(f'load i64, ptr {place}')}"), elsewhere)
            loop.again(asm.let(f"add i64 {t}, 1"))
        asm.put("ret i64 1")
        asm.label("no")
        asm.put("ret i64 0")


def _write_bind_rows(asm: Lines) -> None:
    """For one tensor: the weight, then the gradient's data and indices, which must be ascending and
    within the shape, unless they are PLACED."""
    with asm.function("i64 @bind_rows(ptr %job)"):
        _own(asm)
        ids, e, table = (asm.pointer("%job", word) for word in (WEIGHT_IDS, EXPECTED, POINTERS))
        w, g, i = (asm.pointer(ids, k) for k in range(3))
        asm.demand(asm.let(f"call i1 @in_place(ptr {w}, ptr {e}, ptr {table})"), "no")
        shape = asm.pointer(e, SHAPE)
        of_indices = f"ptr {i}, i64 {id(INT64)}, i64 1, ptr {shape}, i64 1, i32 {THEIRS}"
        asm.demand(asm.let(f"call i1 @fits({of_indices})"), "no")
        asm.demand(_fits(asm, g, asm.word(e, GRAD_DTYPE), e, 1, THEIRS), "no")
        row_count, has = (asm.word(_field(asm, array, DIMENSIONS, "ptr"), 0) for array in (i, g))
        asm.demand(_equal(asm, row_count, has), "no")
        data, indices = _field(asm, g, DATA), _field(asm, i, DATA, "ptr")
        clear = _clear(asm, data, asm.let(f"mul i64 {row_count}, {asm.word(e, GRAD_BYTES)}"))
        at = asm.let(f"ptrtoint ptr {indices} to i64")
        also = _clear(asm, at, asm.let(f"shl i64 {row_count}, 3"))
        asm.demand(asm.let(f"and i1 {clear}, {also}"), "no")
        asm.demand(_equal(asm, asm.word(e, PLACED), 0), "yes")
        with asm.loop("index", ("i64", "0"), ("i64", "-1")) as (loop, k, before):
            loop.until(_equal(asm, k, row_count))
            index = asm.word(indices, k)
            asm.demand(asm.let(f"icmp sgt i64 {index}, {before}"), "no")
            loop.again(asm.let(f"add i64 {k}, 1"), index)
        asm.demand(asm.let(f"icmp slt i64 {before}, {asm.word(shape, 0)}"), "no")
        asm.put("br label %yes")
        asm.label("yes")
        asm.put(f"store i64 {data}, ptr {asm.at('i64', table, 1)}")
        asm.put(f"store ptr {indices}, ptr {asm.at('ptr', '%job', INDICES)}")
        asm.put(f"ret i64 {row_count}")
        asm.label("no")
        asm.put("ret i64 -1")


def _compiled(name: str, write: Callable[[Lines], None], arguments: int = 1) -> Callable[..., int]:
    asm = Lines()
    _write_checks(asm)
    write(asm)
    kind = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * arguments)
    return kind(compile_assembly(asm.module(), name))


@cache
def binder() -> Callable[[int], int]:
    """A function of a job's address that writes the gradients' addresses into the job's table, and
    returns whether all arrays were as expected."""
    return _compiled("bind", _write_bind)


@cache
def list_binder() -> Callable[[int], int]:
    """`binder` where WEIGHT_IDS and GRAD_IDS are the ids of two arrays of objects: the weights and
    the gradients."""
    return _compiled("bind_lists", partial(_write_bind, name="bind_lists"))


@cache
def place_binder() -> Callable[[int, int], int]:
    """A function of a job's address and that of the gradients' addresses: all that it looks at."""
    return _compiled("bind_places", partial(_write_bind, name="bind_places"), 2)


@cache
def row_binder() -> Callable[[int], int]:
    """`binder` for a row-sparse gradient: WEIGHT_IDS is the address of the ids of weight, data and
    indices. Returns the number of rows, or -1."""
    return _compiled("bind_rows", _write_bind_rows)


@cache
def can_read_arrays() -> bool:
    """Whether arrays are laid out as this module assumes: compares one with what NumPy says of
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
