"""A server's arrays as they are at one moment, to be written by another thread while the server goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mxopt.kvstore import wire
from mxopt_server.values import Part


class _Chunk:
    """Bytes of an array: `view` where they are, `copy` where they had to be kept from being changed."""

    __slots__ = ("copy", "read", "view")

    def __init__(self, array: np.ndarray) -> None:
        self.view, self.copy, self.read = wire.bytes_of(array), b"", False


class Moment:
    """What `belongs` lists, (part or parts, array), as it is now.

    `keep` is for the thread that changes parts, before it does; `read` for the one that writes. The former copies what
    the latter hasn't read yet, a piece at a time, and no more than is really changed.
    """

    def __init__(self, belongs: Iterable[tuple[Sequence[Part], np.ndarray]]) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[int, list[_Chunk]] = {}  # by the array's id
        self._of: dict[int, list[_Chunk]] = {}  # by the part's id
        for parts, array in belongs:
            if id(array) in self._chunks:
                continue
            if array.ndim and len(array) == parts[-1].stop:  # each part has its rows of it
                pairs: list[tuple[Sequence[Part], _Chunk]] = [
                    ((part,), _Chunk(array[part.start : part.stop])) for part in parts
                ]
            else:
                pairs = [(parts, _Chunk(array))]
            self._chunks[id(array)] = [chunk for _, chunk in pairs]
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

    def read(self, array: np.ndarray) -> Iterator[Any]:
        """The bytes of one of the arrays, or of any other that doesn't change, piece by piece."""
        for chunk in self._chunks.get(id(array)) or [_Chunk(np.ascontiguousarray(array))]:
            with self._lock:
                data, chunk.copy, chunk.read = chunk.copy or bytes(chunk.view), b"", True
            yield data
