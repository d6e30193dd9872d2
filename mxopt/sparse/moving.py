"""Many rows copied at once between one array and several, each part of which has rows of its own.

They are more than the caches hold, and what is written another process reads next, or a program
that has yet to look at it: so the compiled functions write past the caches, which spares reading
what is overwritten. They go through the one array once, in the order of its rows.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from mxopt import settings
from mxopt.assembler import Lines, compile_assembly

Parts = Sequence[tuple[np.ndarray, np.ndarray]]  # (places of rows in the one array, which ascend; an array of these)

LEAST = 1 << 18  # bytes: what is less NumPy copies
LINE = 64  # bytes that are written past the caches at a time, to a multiple of it
MOST = (1 << 63) - 1


def empty_rows(count: int, unit: int, dtype: np.dtype) -> np.ndarray:
    """A new array (count, unit) whose memory begins at a multiple of LINE."""
    nbytes = count * unit * dtype.itemsize
    memory = np.empty(nbytes + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + nbytes].view(dtype).reshape(count, unit)


def take(rows: np.ndarray, parts: Parts) -> None:
    """Copies rows to the parts that they belong to."""
    if _compiles(rows, parts):
        _move("take", rows, parts)
        return
    for places, part in parts:
        rows.take(places, axis=0, out=part, mode="clip")  # where that is "raise" there is a copy more


def put(rows: np.ndarray, parts: Parts) -> None:
    """Copies the parts to the rows that they belong to."""
    if _compiles(rows, parts):
        _move("put", rows, parts)
        return
    for places, part in parts:
        rows[places] = part


def _compiles(rows: np.ndarray, parts: Parts) -> bool:
    """Whether compiled code copies them."""
    arrays = [part for _, part in parts]
    if settings.engine_name() == "numpy" or sum(part.nbytes for part in arrays) < LEAST:
        return False
    return all(array.flags.c_contiguous and array.dtype == rows.dtype for array in [rows, *arrays])


def _move(name: str, rows: np.ndarray, parts: Parts) -> None:
    table = np.array([(places.ctypes.data, part.ctypes.data, len(places)) for places, part in parts], np.int64)
    row_bytes = math.prod(rows.shape[1:]) * rows.itemsize
    _compiled(name)(rows.ctypes.data, table.ctypes.data, table[:, 2].sum(), len(parts), row_bytes)


@cache
def _compiled(name: str) -> Callable[..., None]:
    kinds = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3
    return ctypes.CFUNCTYPE(None, *kinds)(compile_assembly(_assembly(name), f"{name}_rows"))


def _assembly(name: str) -> str:
    """Of the function that takes or puts rows of `%nbytes`, `%n` in all. `%table` has three numbers
    of each part: where its places are, and its rows; how many are left. The row with the lowest
    place is the next: all parts are looked at for it without a branch, which could not be guessed.
    """
    asm = Lines()
    asm.declarations.add(f"@most = private constant i64 {MOST}")
    with asm.function(f"void @{name}_rows(ptr %rows, ptr %table, i64 %n, i64 %parts, i64 %nbytes)"):
        with asm.loop("row", ("i64", "0")) as (rows, done):
            rows.until(asm.let(f"icmp eq i64 {done}, %n"))
            first = ("i64", "0"), ("i64", str(MOST)), ("ptr", "%table")
            with asm.loop("part", *first) as (parts, k, place, part):
                parts.until(asm.let(f"icmp eq i64 {k}, %parts"))
                other = asm.at("i64", "%table", asm.let(f"mul i64 {k}, 3"))
                some = asm.let(f"icmp ne i64 {asm.word(other, 2)}, 0")
                at = asm.let(f"select i1 {some}, ptr {asm.pointer(other, 0)}, ptr @most")
                lowest = asm.let(f"load i64, ptr {at}")
                lower = asm.let(f"icmp slt i64 {lowest}, {place}")
                place_then = asm.let(f"select i1 {lower}, i64 {lowest}, i64 {place}")
                part_then = asm.let(f"select i1 {lower}, ptr {other}, ptr {part}")
                parts.again(asm.let(f"add i64 {k}, 1"), place_then, part_then)
            places, mine, left = asm.pointer(part, 0), asm.pointer(part, 1), asm.word(part, 2)
            row = asm.at("i8", "%rows", asm.let(f"mul i64 {place}, %nbytes"))
            _copy_row(asm, *((row, mine) if name == "take" else (mine, row)))
            asm.put(f"store ptr {asm.at('i64', places, 1)}, ptr {asm.at('i64', part, 0)}")
            asm.put(f"store ptr {asm.at('i8', mine, '%nbytes')}, ptr {asm.at('i64', part, 1)}")
            asm.put(f"store i64 {asm.let(f'sub i64 {left}, 1')}, ptr {asm.at('i64', part, 2)}")
            rows.again(asm.let(f"add i64 {done}, 1"))
        asm.put("fence seq_cst")  # before another process is told
        asm.put("ret void")
    return asm.module() + "!0 = !{i32 1}\n"  # what !nontemporal needs


def _copy_row(asm: Lines, source: str, target: str) -> None:
    """Copies `%nbytes` bytes: past the caches, where they are whole lines."""
    asm.declarations.add("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1 immarg)")
    line = f"<{LINE // 4} x i32>"
    at = asm.let(f"ptrtoint ptr {target} to i64")
    rest = asm.let(f"and i64 {asm.let(f'or i64 {at}, %nbytes')}, {LINE - 1}")

    def past_the_caches() -> None:
        with asm.loop("line", ("i64", "0")) as (lines, i):
            lines.until(asm.let(f"icmp eq i64 {i}, %nbytes"))
            value = asm.let(f"load {line}, ptr {asm.at('i8', source, i)}, align 1")
            asm.put(f"store {line} {value}, ptr {asm.at('i8', target, i)}, align {LINE}, !nontemporal !0")
            lines.again(asm.let(f"add i64 {i}, {LINE}"))

    def as_usual() -> None:
        asm.put(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 %nbytes, i1 false)")

    asm.when(asm.let(f"icmp eq i64 {rest}, 0"), past_the_caches, instead=as_usual)
