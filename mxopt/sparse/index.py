"""Finds rows by their numbers: a table of hashes, open addressing, as one compiled function.

A row's slot is how many rows came before it, so slots never change. An entry of the table is a slot
and 1, 0 where it is free; whose slot it is, `ids` says. With at most 3 of 4 entries taken that
makes 13 to 19 bytes a row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from mxopt import settings
from mxopt.assembler import compile_assembly
from mxopt.sparse.room import room
from mxopt.typing import Array

FACTORS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd, with half their bits set
SMALLEST = 10  # bits of the smallest table
FAR, NEAR = 24, 12  # ids ahead for which a table's entry, and the number behind it, are fetched into the cache
INT64 = np.dtype(np.int64)


class RowIndex:
    """Which slot each of the rows has that there are.

    Attributes
    ----------
    rows : int
        How many there can be.
    count : int
        How many rows there are.
    ids : array (count,) of int64
        The number of the row in each slot.
    numbers : array (room,) of int64
        The same with room for more, see `room`.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.count: int = 0
        self.numbers: Array = room(0, (rows,), INT64)
        self._table = np.zeros(1 << SMALLEST, np.uint32)

    @property
    def ids(self) -> np.ndarray:
        ids: np.ndarray = self.numbers[: self.count]
        return ids

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The slots of the rows `ids` (int64, contiguous); -1 for those that aren't there."""
        return self._slots(ids, 0)

    def add(self, ids: np.ndarray) -> np.ndarray:
        """The slots of the rows `ids` (int64, contiguous), which are there from now on: new ones in
        their order."""
        most = self.count + len(ids)
        if 4 * most > 3 * len(self._table):
            self._grow(most)
        self.numbers = room(min(most, self.rows), (self.rows,), INT64, self.numbers, self.count)
        return self._slots(ids, 1)

    def copy(self) -> RowIndex:
        """A copy with arrays of its own."""
        return _restored(self.rows, self.ids)

    def __reduce__(self) -> tuple[Callable[..., RowIndex], tuple[int, np.ndarray]]:
        return _restored, (self.rows, self.ids.copy())

    def _grow(self, rows: int) -> None:
        """Makes a table for so many rows, and puts those in that there are."""
        size = len(self._table)
        while 4 * rows > 3 * size:
            size *= 2
        self._table = np.zeros(size, np.uint32)
        ids, self.count = self.ids, 0
        self._slots(ids, 1)

    def _slots(self, ids: np.ndarray, add: int) -> np.ndarray:
        slots = np.empty(len(ids), INT64)
        shift = 65 - len(self._table).bit_length()
        look = look_up_slowly if settings.engine_name() == "numpy" else _look_up
        self.count = look(self._table, shift, self.numbers, self.count, ids, slots, add)
        return slots


def _restored(rows: int, ids: np.ndarray) -> RowIndex:
    made = RowIndex(rows)
    made.add(ids)
    return made


def look_up_slowly(
    table: np.ndarray, shift: int, known: np.ndarray, count: int, ids: np.ndarray, slots: np.ndarray, add: int
) -> int:
    """What the compiled function does, one line of it at a time: writes the slots of `ids`, of
    `known` so many of which are there; returns how many are there then."""
    mask, whole = len(table) - 1, (1 << 64) - 1
    for k, row in enumerate(ids.tolist()):
        hashed = row * FACTORS[0] & whole
        at = ((hashed ^ hashed >> 32) * FACTORS[1] & whole) >> shift
        while table[at] and known[table[at] - 1] != row:
            at = at + 1 & mask
        if add and not table[at]:
            known[count] = row
            count += 1
            table[at] = count
        slots[k] = int(table[at]) - 1
    return count


def _look_up(
    table: np.ndarray, shift: int, known: np.ndarray, count: int, ids: np.ndarray, slots: np.ndarray, add: int
) -> int:
    arrays = (array.ctypes.data for array in (table, known, ids, slots))
    return _compiled()(*arrays, shift, count, len(ids), add)


@cache
def _compiled() -> Callable[..., int]:
    kinds = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 4
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(compile_assembly(_assembly(), "look_up"))


def _assembly() -> str:
    def at(place: str, k: str, ahead: int) -> str:
        """The place in the table of `ids[k + ahead]`, or of the last of them."""
        return f"""
  %{place}.k = add i64 {k}, {ahead}
  %{place}.least = call i64 @llvm.umin.i64(i64 %{place}.k, i64 %last)
  %{place}.id.at = getelementptr i64, ptr %ids, i64 %{place}.least
  %{place}.id = load i64, ptr %{place}.id.at
  %{place} = call i64 @home(i64 %{place}.id, i64 %shift)
  %{place}.at = getelementptr i32, ptr %table, i64 %{place}"""

    return f"""
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.prefetch.p0(ptr, i32 immarg, i32 immarg, i32 immarg)

define internal i64 @home(i64 %id, i64 %shift) alwaysinline {{
  %once = mul i64 %id, {FACTORS[0] - (1 << 64)}
  %high = lshr i64 %once, 32
  %mixed = xor i64 %once, %high
  %twice = mul i64 %mixed, {FACTORS[1] - (1 << 64)}
  %place = lshr i64 %twice, %shift
  ret i64 %place
}}

define i64 @look_up(ptr %table, ptr %known, ptr %ids, ptr %slots, i64 %shift, i64 %there, i64 %n, i64 %add) {{
  %bits = sub i64 64, %shift
  %size = shl i64 1, %bits
  %mask = sub i64 %size, 1
  %last = sub i64 %n, 1
  %adds = icmp ne i64 %add, 0
  br label %next
next:
  %k = phi i64 [ 0, %0 ], [ %k.next, %done ]
  %count = phi i64 [ %there, %0 ], [ %count.next, %done ]
  %end = icmp eq i64 %k, %n
  br i1 %end, label %out, label %row
row:{at("far", "%k", FAR)}
  call void @llvm.prefetch.p0(ptr %far.at, i32 0, i32 3, i32 1){at("near", "%k", NEAR)}
  %near.entry = load i32, ptr %near.at
  %near.some = icmp ne i32 %near.entry, 0
  %near.index = zext i32 %near.entry to i64
  %near.slot = sub i64 %near.index, 1
  %near.known = getelementptr i64, ptr %known, i64 %near.slot
  %near.fetch = select i1 %near.some, ptr %near.known, ptr %near.at
  call void @llvm.prefetch.p0(ptr %near.fetch, i32 0, i32 3, i32 1){at("here", "%k", 0)}
  br label %probe
probe:
  %place = phi i64 [ %here, %row ], [ %place.next, %other ]
  %entry.at = getelementptr i32, ptr %table, i64 %place
  %entry = load i32, ptr %entry.at
  %index = zext i32 %entry to i64
  %slot = sub i64 %index, 1
  %free = icmp eq i32 %entry, 0
  br i1 %free, label %absent, label %taken
taken:
  %known.at = getelementptr i64, ptr %known, i64 %slot
  %known.id = load i64, ptr %known.at
  %same = icmp eq i64 %known.id, %here.id
  br i1 %same, label %done, label %other
other:
  %place.more = add i64 %place, 1
  %place.next = and i64 %place.more, %mask
  br label %probe
absent:
  br i1 %adds, label %new, label %done
new:
  %new.at = getelementptr i64, ptr %known, i64 %count
  store i64 %here.id, ptr %new.at
  %more = add i64 %count, 1
  %new.entry = trunc i64 %more to i32
  store i32 %new.entry, ptr %entry.at
  br label %done
done:
  %found = phi i64 [ %slot, %taken ], [ -1, %absent ], [ %count, %new ]
  %count.next = phi i64 [ %count, %taken ], [ %count, %absent ], [ %more, %new ]
  %slot.at = getelementptr i64, ptr %slots, i64 %k
  store i64 %found, ptr %slot.at
  %k.next = add i64 %k, 1
  br label %next
out:
  ret i64 %count
}}
"""
