"""A server's arrays as of one moment, written by another thread while the server goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mxopt.kvstore import wire
from mxopt.kvstore.wire import Frame
from mxopt.sparse.index import RowIndex
from mxopt_server.entries import Part

PART_BYTES = 4 << 20  # bytes of rows that are read at a time


class _Chunk:
    """Bytes of an array: `view` where they are, `copy` where they had to be kept from being
    changed."""

    __slots__ = ("copy", "read", "view")

    def __init__(self, array: np.ndarray) -> None:
        self.view, self.copy, self.read = wire.bytes_of(array), b"", False


class _Rows:
    """The rows of an array in slots; those that had to be kept from being changed, with their
    slots."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.kept = np.zeros(len(array), bool)
        self.copies: list[tuple[np.ndarray, np.ndarray]] = []

    def keep(self, slots: np.ndarray) -> None:
        slots = slots[(slots >= 0) & (slots < len(self.array))]
        slots = slots[~self.kept[slots]]
        if len(slots):
            self.kept[slots] = True
            self.copies.append((slots, self.array.take(slots, axis=0)))

    def read(self, start: int, stop: int) -> bytes:
        """The rows as they were at that moment."""
        rows = self.array[start:stop].copy()
        for slots, copies in self.copies:
            here = (slots >= start) & (slots < stop)
            rows[slots[here] - start] = copies[here]
        return rows.tobytes()


class Moment:
    """What `belongs` lists, (part or parts, array), as it is now; and of keys stored by rows the
    arrays in slots that `by_rows` has: (part, the rows' index, their arrays).

    `keep` and `keep_rows` are for the thread that changes parts, before it does; `read` for the one
    that writes. The former copy what the latter hasn't read yet, a piece or some rows at a time,
    and no more than is really changed.
    """

    def __init__(
        self,
        belongs: Iterable[tuple[Sequence[Part], np.ndarray]],
        by_rows: Iterable[tuple[Part, RowIndex, Sequence[np.ndarray]]] = (),
    ) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[tuple[int, int], list[_Chunk]] = {}  # by where the array is
        self._in_slots: dict[tuple[int, int], _Rows] = {}
        self._rows_of: dict[int, list[tuple[RowIndex, list[_Rows]]]] = {}  # by the part's id
        for part, index, arrays in by_rows:
            rows = [self._in_slots.setdefault(_place(array), _Rows(array)) for array in arrays]
            self._rows_of.setdefault(id(part), []).append((index, rows))
        self._of: dict[int, list[_Chunk]] = {}  # by the part's id
        for parts, array in belongs:
            if _place(array) in self._chunks:
                continue
            if array.ndim and len(array) == parts[-1].stop:  # each part has its rows of it
                pairs: list[tuple[Sequence[Part], _Chunk]] = [
                    ((part,), _Chunk(array[part.start : part.stop])) for part in parts
                ]
            else:
                pairs = [(parts, _Chunk(array))]
            self._chunks[_place(array)] = [chunk for _, chunk in pairs]
            for owners, chunk in pairs:
                for part in owners:
                    self._of.setdefault(id(part), []).append(chunk)

    def keep(self, parts: Iterable[Part]) -> None:
        """Copies what is about to be changed."""
        for part in parts:
            for chunk in self._of.pop(id(part), ()):
                with self._lock:
                    if not chunk.read and not chunk.copy:
                        chunk.copy = bytes(chunk.view)

    def keep_rows(self, part: Part, ids: np.ndarray) -> None:
        """Copies rows that are about to be changed."""
        for index, arrays in self._rows_of.get(id(part), ()):
            slots = index.find(ids)
            with self._lock:
                for rows in arrays:
                    rows.keep(slots)

    def read(self, array: np.ndarray) -> Iterator[Frame]:
        """The bytes of one of the arrays, or of any other that doesn't change, piece by piece."""
        rows = self._in_slots.get(_place(array))
        if rows is not None:
            step = max(1, PART_BYTES // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                with self._lock:
                    data = rows.read(start, min(len(array), start + step))
                yield data
            return
        for chunk in self._chunks.get(_place(array)) or [_Chunk(np.ascontiguousarray(array))]:
            with self._lock:
                data, chunk.copy, chunk.read = chunk.copy or bytes(chunk.view), b"", True
            yield data


def _place(array: np.ndarray) -> tuple[int, int]:
    """Where an array's memory is."""
    return array.ctypes.data, array.nbytes
