"""Sums of rows that are listed by their numbers, as two compiled functions: one finds where each
row of several lists goes, the other adds the rows there, in the order in which they are given."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from mxopt import settings
from mxopt.assembler import compile_assembly
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
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(compile_assembly(MERGE, "merge_rows"))


@cache
def _compiled_add(dtype: str) -> Callable[..., None]:
    kinds: list[Any] = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2
    return ctypes.CFUNCTYPE(None, *kinds)(compile_assembly(_assembly(*REALS[dtype]), "add_rows"))


# The lower of the next two numbers goes out, and so does the other if it is the same. A place is
# written at every step and stays as it is once its number has gone: so there is no branch to be
# guessed.
MERGE = f"""
@most = private constant i64 {(1 << 63) - 1}

define i64 @merge_rows(ptr %a, ptr %b, ptr %ids, ptr %at.a, ptr %at.b, i64 %n.a, i64 %n.b) {{
  br label %next
next:
  %i = phi i64 [ 0, %0 ], [ %i.next, %take ]
  %j = phi i64 [ 0, %0 ], [ %j.next, %take ]
  %n = phi i64 [ 0, %0 ], [ %n.next, %take ]
  %some.a = icmp ult i64 %i, %n.a
  %some.b = icmp ult i64 %j, %n.b
  %some = or i1 %some.a, %some.b
  br i1 %some, label %take, label %out
take:
  %there.a = getelementptr i64, ptr %a, i64 %i
  %there.b = getelementptr i64, ptr %b, i64 %j
  %from.a = select i1 %some.a, ptr %there.a, ptr @most
  %from.b = select i1 %some.b, ptr %there.b, ptr @most
  %x = load i64, ptr %from.a
  %y = load i64, ptr %from.b
  %takes.a = icmp sle i64 %x, %y
  %takes.b = icmp sle i64 %y, %x
  %id = select i1 %takes.a, i64 %x, i64 %y
  %to = getelementptr i64, ptr %ids, i64 %n
  store i64 %id, ptr %to
  %to.a = getelementptr i64, ptr %at.a, i64 %i
  store i64 %n, ptr %to.a
  %to.b = getelementptr i64, ptr %at.b, i64 %j
  store i64 %n, ptr %to.b
  %more.a = zext i1 %takes.a to i64
  %more.b = zext i1 %takes.b to i64
  %i.next = add i64 %i, %more.a
  %j.next = add i64 %j, %more.b
  %n.next = add i64 %n, 1
  br label %next
out:
  ret i64 %n
}}
"""


def _assembly(real: str, size: int) -> str:
    """Of the function that adds rows of a type."""

    def loop(name: str, kind: str, step: int, end: str, after: str) -> str:
        """Elements of a row, from where another has ended on."""
        return f"""
{name}:
  %{name}.k = phi i64 [ {after} ], [ %{name}.next, %{name}.body ]
  %{name}.some = icmp ult i64 %{name}.k, {end}
  br i1 %{name}.some, label %{name}.body, label %{name}.end
{name}.body:
  %{name}.from.at = getelementptr {real}, ptr %from, i64 %{name}.k
  %{name}.to.at = getelementptr {real}, ptr %to, i64 %{name}.k
  %{name}.x = load {kind}, ptr %{name}.to.at, align {size}
  %{name}.y = load {kind}, ptr %{name}.from.at, align {size}
  %{name}.sum = fadd {kind} %{name}.x, %{name}.y
  store {kind} %{name}.sum, ptr %{name}.to.at, align {size}
  %{name}.next = add i64 %{name}.k, {step}
  br label %{name}
{name}.end:"""

    return f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1 immarg)

define void @add_rows(ptr %rows, ptr %places, ptr %total, ptr %seen, i64 %n, i64 %width) {{
  %rest = urem i64 %width, {LANES}
  %vectors = sub i64 %width, %rest
  %bytes = mul i64 %width, {size}
  br label %row
row:
  %k = phi i64 [ 0, %0 ], [ %k.next, %done ]
  %more = icmp ult i64 %k, %n
  br i1 %more, label %where, label %out
where:
  %place.at = getelementptr i64, ptr %places, i64 %k
  %place = load i64, ptr %place.at
  %seen.at = getelementptr i8, ptr %seen, i64 %place
  %known = load i8, ptr %seen.at
  %first.of = mul i64 %k, %width
  %from = getelementptr {real}, ptr %rows, i64 %first.of
  %first.to = mul i64 %place, %width
  %to = getelementptr {real}, ptr %total, i64 %first.to
  %again = icmp ne i8 %known, 0
  br i1 %again, label %wide, label %copy
copy:
  store i8 1, ptr %seen.at
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  br label %done
{loop("wide", f"<{LANES} x {real}>", LANES, "%vectors", "0, %where")}
  br label %each
{loop("each", real, 1, "%width", "%vectors, %wide.end")}
  br label %done
done:
  %k.next = add i64 %k, 1
  br label %row
out:
  ret void
}}
"""
