"""Finds rows by their numbers: a table of hashes, open addressing, as one compiled function.

A row's slot is how many rows came before it, so slots never change. An entry of the table is a slot
and 1, 0 where it is free; whose slot it is, `ids` says. With at most 3 of 4 entries taken that
makes 13 to 19 bytes a row. A table that would have an entry for each row there can be, or more, has
just these: a row's own is found by its number, without a hash, and there is one more behind them,
never taken, for numbers that are none of a row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from mxopt import settings
from mxopt.assembler import Lines, compile_assembly
from mxopt.sparse.room import room
from mxopt.typing import Array

FACTORS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd, with half their bits set
SMALLEST = 10  # bits of the smallest table
AT_ONCE = 1 << 16  # rows that a larger table takes at once
FAR, NEAR = 24, 12  # ids ahead for which a table's entry, and the number behind it, are fetched into the cache
INT64, ENTRY = np.dtype(np.int64), np.dtype(np.uint32)


class RowIndex:
    """The slot of each row that is there.

    Attributes
    ----------
    most : int
        How many there can be.
    count : int
        How many rows there are.
    ids : array (count,) of int64
        The number of the row in each slot.
    numbers : array (room,) of int64
        The same with room for more, see `room`.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count: int = 0
        self.numbers: Array = room(0, (most,), INT64)
        self._direct = False  # whether the table has an entry for each row there can be
        self._table = self._made(1 << SMALLEST)

    @property
    def ids(self) -> np.ndarray:
        ids: np.ndarray = self.numbers[: self.count]
        return ids

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The slots of the rows `ids` (int64, contiguous); -1 for rows that aren't there."""
        if not self._direct:
            return self._slots(ids, 0)
        places = np.minimum(ids.view(np.uint64), self.most).view(INT64)
        found: np.ndarray = np.subtract(self._table.take(places), 1, dtype=INT64)
        return found

    def add(self, ids: np.ndarray) -> np.ndarray:
        """Adds the rows `ids` (int64, contiguous) that aren't there yet, in order; returns the
        slots of all."""
        count = self.count + len(ids)  # at most
        if not self._direct and 4 * count > 3 * len(self._table):
            self._grow(count)
        self.numbers = room(min(count, self.most), (self.most,), INT64, self.numbers, self.count)
        return self._slots(ids, 1)

    def __reduce__(self) -> tuple[Callable[..., RowIndex], tuple[int, np.ndarray]]:
        return _restored, (self.most, self.ids.copy())

    def _grow(self, count: int) -> None:
        """Makes a larger table, with room for this number of rows, from the present one."""
        size = len(self._table)
        while 4 * count > 3 * size:
            size *= 2
        self._table = self._made(size)
        ids, self.count = self.ids, 0
        for first in range(0, len(ids), AT_ONCE):  # whose slots nobody needs
            self._slots(ids[first : first + AT_ONCE], 1)

    def _made(self, size: int) -> np.ndarray:
        """An empty table of `size` entries, a power of two, or of one for each row there can be."""
        self._direct = size >= self.most
        entries = self.most + 1 if self._direct else size
        table: np.ndarray = room(entries, (entries,), ENTRY)  # which goes back to the system when a larger one is there
        return table

    def _slots(self, ids: np.ndarray, add: int) -> np.ndarray:
        slots = np.empty(len(ids), INT64)
        shift = 0 if self._direct else 65 - len(self._table).bit_length()
        look = look_up_slowly if settings.engine_name() == "numpy" else _look_up
        self.count = look(self._table, shift, self.numbers, self.count, ids, slots, add)
        return slots


def _restored(most: int, ids: np.ndarray) -> RowIndex:
    made = RowIndex(most)
    made.add(ids)
    return made


def look_up_slowly(
    table: np.ndarray, shift: int, known: np.ndarray, count: int, ids: np.ndarray, slots: np.ndarray, add: int
) -> int:
    """What the compiled function does, one line of it at a time: writes the slots of `ids`; `count`
    of `known` are there before, and it returns how many are there afterwards. Where `shift` is 0 a
    number is its place in the table."""
    mask, whole = len(table) - 1, (1 << 64) - 1
    for k, row in enumerate(ids.tolist()):
        hashed = row * FACTORS[0] & whole
        at = ((hashed ^ hashed >> 32) * FACTORS[1] & whole) >> shift if shift else min(row & whole, mask)
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
    return _compiled()(*arrays, shift, len(table) - 1, count, len(ids), add)


@cache
def _compiled() -> Callable[..., int]:
    kinds = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 5
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(compile_assembly(_assembly(), "look_up"))


def _assembly() -> str:
    asm = Lines()
    with asm.function("internal i64 @home(i64 %id, i64 %shift, i64 %mask)"):
        once = asm.let(f"mul i64 %id, {FACTORS[0] - (1 << 64)}")
        mixed = asm.let(f"xor i64 {once}, {asm.let(f'lshr i64 {once}, 32')}")
        twice = asm.let(f"mul i64 {mixed}, {FACTORS[1] - (1 << 64)}")
        hashed, direct = asm.let(f"lshr i64 {twice}, %shift"), asm.let("icmp eq i64 %shift, 0")
        own = asm.smaller("%id", "%mask")
        asm.put(f"ret i64 {asm.let(f'select i1 {direct}, i64 {own}, i64 {hashed}')}")
    head = "ptr %table, ptr %known, ptr %ids, ptr %slots, i64 %shift, i64 %mask, i64 %there, i64 %n, i64 %add"
    with asm.function(f"i64 @look_up({head})"):
        last, adds = asm.let("sub i64 %n, 1"), asm.let("icmp ne i64 %add, 0")

        def home(k: str) -> tuple[str, str]:
            """The id number k, and its place in the table."""
            row = asm.word("%ids", k)
            return row, asm.let(f"call i64 @home(i64 {row}, i64 %shift, i64 %mask)")

        def ahead(k: str, by: int) -> str:
            """The address of the place of the id that comes this much later, or of the last."""
            return asm.at("i32", "%table", home(asm.smaller(asm.let(f"add i64 {k}, {by}"), last))[1])

        def entry(at: str) -> tuple[str, str]:
            """Whether the entry at an address is taken, and the slot it stands for."""
            index = asm.let(f"load i32, ptr {at}")
            slot = asm.let(f"sub i64 {asm.let(f'zext i32 {index} to i64')}, 1")
            return asm.let(f"icmp ne i32 {index}, 0"), slot

        with asm.loop("row", ("i64", "0"), ("i64", "%there")) as (rows, k, count):
            rows.until(asm.let(f"icmp eq i64 {k}, %n"))
            asm.fetch(ahead(k, FAR), False)
            near = ahead(k, NEAR)
            some, slot = entry(near)
            asm.fetch(asm.let(f"select i1 {some}, ptr {asm.at('i64', '%known', slot)}, ptr {near}"), False)
            row, here = home(k)
            with asm.loop("probe", ("i64", here)) as (probes, place):
                at = asm.at("i32", "%table", place)
                taken, slot = entry(at)
                probes.until(asm.let(f"xor i1 {taken}, true"))
                probes.until(asm.let(f"icmp eq i64 {asm.word('%known', slot)}, {row}"))
                probes.again(asm.let(f"and i64 {asm.let(f'add i64 {place}, 1')}, %mask"))
            more = asm.let(f"add i64 {count}, 1")
            new = asm.let(f"and i1 {adds}, {asm.let(f'xor i1 {taken}, true')}")

            def add() -> list[str]:
                asm.put(f"store i64 {row}, ptr {asm.at('i64', '%known', count)}")
                asm.put(f"store i32 {asm.let(f'trunc i64 {more} to i32')}, ptr {at}")
                return [count, more]

            found, following = asm.when(new, add, "i64", [slot, count])
            asm.put(f"store i64 {found}, ptr {asm.at('i64', '%slots', k)}")
            rows.again(asm.let(f"add i64 {k}, 1"), following)
        asm.put(f"ret i64 {count}")
    return asm.module()
