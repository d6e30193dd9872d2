"""Sums of rows that are listed by their numbers, as compiled functions: one finds where each row of
several lists goes, one adds the rows there, in the order in which they are given, and one does so
only for the rows that are in several lists, and says where the others lie."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from mxopt import settings
from mxopt.assembler import Lines, compile_assembly
from mxopt.typing import Array

INT64 = np.dtype(np.int64)
LANES = 8  # elements that are added at once
REALS = {"float32": ("float", 4), "float64": ("double", 8)}  # in LLVM, and their bytes


def merged(lists: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The numbers of several lists, each of which ascends, in one that ascends; and the place there
    of each number of each list."""
    ids, places = lists[0], [np.arange(len(lists[0]))]
    for more in lists[1:]:
        if np.array_equal(ids, more):
            places.append(np.arange(len(ids)))
            continue
        merge = merge_slowly if settings.engine_name() == "numpy" else _merge
        ids, old, new = merge(ids, more)
        places = [old[each] for each in places] + [new]
    return ids, places


def numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a list in any order, ascending and each once; and the place there of each
    number of the list."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    first = np.ones(len(ids), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    places = np.empty(len(ids), INT64)
    places[order] = np.cumsum(first) - 1
    return ascending[first], places


def added(parts: Sequence[tuple[Array, np.ndarray]], count: int) -> np.ndarray:
    """The sums of `parts`, (rows, the places of these among the `count` sums): each is the first of
    its rows, to which the others are added in the order of the parts, and within one of its rows.
    At least one row goes to each place."""
    like = parts[0][0]
    total = np.empty((count, *like.shape[1:]), like.dtype)
    seen = np.zeros(count, bool)
    add = add_slowly if settings.engine_name() == "numpy" or str(like.dtype) not in REALS else _add
    for rows, places in parts:
        add(np.ascontiguousarray(rows), places, total, seen)
    return total


def reached(parts: Sequence[tuple[Array, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The addresses of the rows that `added` gives: where a row has nothing added it is where it
    came, else in the other array that is returned. Both, and `parts`, must live while they are
    used. None where no compiled code would add."""
    like, number = parts[0][0], sum(len(places) for _, places in parts)
    if settings.engine_name() == "numpy" or str(like.dtype) not in REALS:
        return None
    if not all(rows.flags.c_contiguous for rows, _ in parts):
        return None
    width = math.prod(like.shape[1:])
    where, sums, used = np.zeros(count, INT64), np.empty((number - count, width), like.dtype), 0
    for rows, places in parts:
        arrays = (x.ctypes.data for x in (rows, places, where, sums))
        used = _compiled_reach(str(like.dtype))(*arrays, used, len(places), width)
    return where, sums


def merge_slowly(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same in Python: merges two ascending lists, and gives the positions of both."""
    ids = np.union1d(a, b)
    return ids, np.searchsorted(ids, a), np.searchsorted(ids, b)


def _merge(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.empty(len(a) + len(b) + 1, INT64)
    at_a, at_b = np.empty(len(a) + 1, INT64), np.empty(len(b) + 1, INT64)
    count = _compiled_merge()(*(x.ctypes.data for x in (a, b, ids, at_a, at_b)), len(a), len(b))
    return ids[:count], at_a[:-1], at_b[:-1]


def add_slowly(rows: np.ndarray, places: np.ndarray, total: np.ndarray, seen: np.ndarray) -> None:
    """What the compiled function does: lets the row at each of `places` be the one that comes, or
    have it added where there is one already, which `seen` says."""
    first = np.zeros(len(places), bool)
    first[np.unique(places, return_index=True)[1]] = True
    first &= ~seen[places]
    total[places[first]] = rows[first]  # not 0 + rows: that would turn -0 into 0
    np.add.at(total, places[~first], rows[~first])
    seen[places] = True


def _add(rows: np.ndarray, places: np.ndarray, total: np.ndarray, seen: np.ndarray) -> None:
    arrays = (x.ctypes.data for x in (rows, places, total, seen))
    _compiled_add(str(total.dtype))(*arrays, len(places), rows.size // max(1, len(places)))


@cache
def _compiled_merge() -> Callable[..., int]:
    kinds = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 2
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(compile_assembly(_merge_assembly(), "merge_rows"))


@cache
def _compiled_add(dtype: str) -> Callable[..., None]:
    kinds: list[Any] = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2
    return ctypes.CFUNCTYPE(None, *kinds)(compile_assembly(_add_assembly(*REALS[dtype]), "add_rows"))


@cache
def _compiled_reach(dtype: str) -> Callable[..., int]:
    kinds: list[Any] = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(compile_assembly(_reach_assembly(*REALS[dtype]), "reach_rows"))


def _merge_assembly() -> str:
    """Of the function that merges two lists. The lower of the next two numbers goes out, and so
    does the other if it is the same. A place is written at every step and stays as it is once its
    number has gone: so there is no branch to be guessed."""
    asm = Lines()
    asm.declarations.add(f"@most = private constant i64 {(1 << 63) - 1}")
    with asm.function("i64 @merge_rows(ptr %a, ptr %b, ptr %ids, ptr %at.a, ptr %at.b, i64 %n.a, i64 %n.b)"):
        with asm.loop("next", *[("i64", "0")] * 3) as (loop, i, j, n):
            ended_a, ended_b = asm.let(f"icmp uge i64 {i}, %n.a"), asm.let(f"icmp uge i64 {j}, %n.b")
            loop.until(asm.let(f"and i1 {ended_a}, {ended_b}"))

            def number(ended: str, numbers: str, k: str) -> str:
                """Number k of a list; where there is none, the highest there can be."""
                there = asm.at("i64", numbers, k)
                return asm.let(f"load i64, ptr {asm.let(f'select i1 {ended}, ptr @most, ptr {there}')}")

            x, y = number(ended_a, "%a", i), number(ended_b, "%b", j)
            takes_a, takes_b = asm.let(f"icmp sle i64 {x}, {y}"), asm.let(f"icmp sle i64 {y}, {x}")
            lower = asm.let(f"select i1 {takes_a}, i64 {x}, i64 {y}")
            for value, array, place in ((lower, "%ids", n), (n, "%at.a", i), (n, "%at.b", j)):
                asm.put(f"store i64 {value}, ptr {asm.at('i64', array, place)}")
            steps = [asm.let(f"zext i1 {takes} to i64") for takes in (takes_a, takes_b)]
            loop.again(*(asm.let(f"add i64 {at}, {step}") for at, step in zip((i, j, n), (*steps, "1"), strict=True)))
        asm.put(f"ret i64 {n}")
    return asm.module()


def _add_assembly(real: str, size: int) -> str:
    """Of the function that adds rows of a type."""
    asm = Lines()
    asm.declarations.add("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1 immarg)")
    with asm.function("void @add_rows(ptr %rows, ptr %places, ptr %total, ptr %seen, i64 %n, i64 %width)"):
        vectors = asm.let(f"sub i64 %width, {asm.let(f'urem i64 %width, {LANES}')}")
        nbytes = asm.let(f"mul i64 %width, {size}")
        with asm.loop("row", ("i64", "0")) as (rows, k):
            rows.until(asm.let(f"icmp eq i64 {k}, %n"))
            place = asm.word("%places", k)
            row = asm.at(real, "%rows", asm.let(f"mul i64 {k}, %width"))
            sums = asm.at(real, "%total", asm.let(f"mul i64 {place}, %width"))
            known = asm.at("i8", "%seen", place)
            new = asm.let(f"icmp eq i8 {asm.let(f'load i8, ptr {known}')}, 0")

            def add_all() -> None:
                _add_row(asm, real, size, sums, sums, row, vectors)

            def copy() -> None:
                asm.put(f"store i8 1, ptr {known}")
                asm.put(f"call void @llvm.memcpy.p0.p0.i64(ptr {sums}, ptr {row}, i64 {nbytes}, i1 false)")

            asm.when(new, copy, instead=add_all)
            rows.again(asm.let(f"add i64 {k}, 1"))
        asm.put("ret void")
    return asm.module()


def _reach_assembly(real: str, size: int) -> str:
    """Of the function that writes the addresses of rows, and adds those of one place in `%sums`,
    of which so many are used; returns how many are then."""
    asm = Lines()
    with asm.function("i64 @reach_rows(ptr %rows, ptr %places, ptr %where, ptr %sums, i64 %used, i64 %n, i64 %width)"):
        vectors = asm.let(f"sub i64 %width, {asm.let(f'urem i64 %width, {LANES}')}")
        first = asm.let("ptrtoint ptr %sums to i64")
        with asm.loop("row", ("i64", "0"), ("i64", "%used")) as (rows, k, used):
            rows.until(asm.let(f"icmp eq i64 {k}, %n"))
            row = asm.at(real, "%rows", asm.let(f"mul i64 {k}, %width"))
            place = asm.at("i64", "%where", asm.word("%places", k))
            known = asm.let(f"load i64, ptr {place}")
            new = asm.let(f"icmp eq i64 {known}, 0")
            taken = asm.let(f"mul i64 {used}, {asm.let(f'mul i64 %width, {size}')}")
            is_sum = asm.let(f"icmp ult i64 {asm.let(f'sub i64 {known}, {first}')}, {taken}")
            free = asm.let(f"add i64 {first}, {taken}")
            to = asm.let(f"select i1 {is_sum}, i64 {known}, i64 {free}")

            def add() -> None:
                into, before = (asm.let(f"inttoptr i64 {at} to ptr") for at in (to, known))
                _add_row(asm, real, size, into, before, row, vectors)

            asm.when(asm.let(f"xor i1 {new}, true"), add)
            at = asm.let(f"select i1 {new}, i64 {asm.let(f'ptrtoint ptr {row} to i64')}, i64 {to}")
            asm.put(f"store i64 {at}, ptr {place}")
            again = asm.let(f"or i1 {new}, {is_sum}")
            more = asm.let(f"zext i1 {asm.let(f'xor i1 {again}, true')} to i64")
            rows.again(asm.let(f"add i64 {k}, 1"), asm.let(f"add i64 {used}, {more}"))
        asm.put(f"ret i64 {used}")
    return asm.module()


def _add_row(asm: Lines, real: str, size: int, into: str, a: str, b: str, vectors: str) -> None:
    """Writes the sum of two rows of `%width` elements, of which `vectors` go by LANES."""

    def add(kind: str, step: int, first: str, end: str) -> None:
        """Adds elements of the rows, so many at a time."""
        with asm.loop("elements", ("i64", first)) as (elements, at):
            elements.until(asm.let(f"icmp eq i64 {at}, {end}"))
            x, y = (asm.let(f"load {kind}, ptr {asm.at(real, each, at)}, align {size}") for each in (a, b))
            asm.put(f"store {kind} {asm.let(f'fadd {kind} {x}, {y}')}, ptr {asm.at(real, into, at)}, align {size}")
            elements.again(asm.let(f"add i64 {at}, {step}"))

    add(f"<{LANES} x {real}>", LANES, "0", vectors)
    add(real, 1, vectors, "%width")
