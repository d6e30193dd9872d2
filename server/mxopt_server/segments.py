"""Files of records, which are only ever appended to.

A segment is `MAGIC`, a version, and records::

    8 bytes    N, the length of the body, little-endian, as all numbers
    8 bytes    B, how many bytes at its end are the body's bulk
    4 bytes    check of the body
    4 bytes    CRC-32 of the 20 bytes before
    N bytes    body

The check is the CRC-32 of the body, in which each 4 KiB of the bulk are replaced by the sum of
their 64-bit words: a CRC of all bytes would take more time than writing them. Any change of one
byte shows in it, and any block that is missing, of zeros or in another's place.

A process that is killed leaves at most one record in part, at the end of its last segment: it
doesn't count, since nobody has had an answer that rests on it. Anywhere else it is damage, and an
error.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mxopt.document import sync_folder
from mxopt.errors import StatesError
from mxopt.kvstore.wire import Frame

MAGIC = b"mxoptlog"
VERSION = 3
START = struct.Struct("<8sI")
HEAD = struct.Struct("<QQI")
CHECK = struct.Struct("<I")
BEFORE = HEAD.size + CHECK.size  # bytes of a record before its body
SIZE = 64 << 20  # bytes after which a segment is followed by another
BUFFERS = 512  # of one call of the system
BULK = 1 << 16  # bytes from which the last part of a body is its bulk
BLOCK = 4096


class Writer:
    """Appends to the segment `path`, a file that isn't there yet. Raises OSError if that can't
    be done (a full disk); what is in part then doesn't count."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, START.size
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._entered = False  # whether the folder's entry is on the disk
        self._write([START.pack(MAGIC, VERSION)])

    def append(self, body: Sequence[Frame]) -> None:
        """Adds a record, whose body are these bytes one after the other."""
        size, bulk = sum(map(len, body)), len(body[-1]) if len(body[-1]) >= BULK else 0
        head = HEAD.pack(size, bulk, _check(body[:-1], body[-1]) if bulk else _check(body, b""))
        self._write([head + CHECK.pack(zlib.crc32(head)), *body])
        self.size += BEFORE + size

    def sync(self) -> None:
        """Returns when what has been appended is on the disk."""
        os.fdatasync(self._file)
        if not self._entered:
            sync_folder(self.path.parent)
            self._entered = True

    def close(self) -> None:
        """Ends the segment."""
        os.close(self._file)

    def _write(self, parts: Sequence[Frame]) -> None:
        left = [memoryview(part) for part in parts]
        while left:
            written = os.writev(self._file, left[:BUFFERS])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left and written:
                left[0] = left[0][written:]


def read(path: Path, length: int | None = None, most: int | None = None) -> Iterator[tuple[int, memoryview]]:
    """(where it ends, body) of each record of a segment up to `length`, or, without one, up to the
    first that isn't there in full; those whose bodies have more than `most` bytes are left out,
    unread. Raises StatesError if it is no segment, or a record within `length` is damaged."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(START.size)
        if len(start) < START.size and length is None:
            return  # its writer was killed as it made it
        if len(start) < START.size or START.unpack(start) != (MAGIC, VERSION):
            raise StatesError(f"{path} is no journal of this version of mxopt-server")
        if size == START.size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as whole:
            at, end = START.size, size if length is None else length
            while at < end:
                body, is_left_out = _record(whole, at, min(size, end), most)
                if body is None:
                    if length is None:
                        return
                    raise StatesError(f"the journal {path} is damaged at byte {at}")
                at += BEFORE + len(body)
                with body:
                    if not is_left_out:
                        yield at, body


def _record(whole: memoryview, at: int, end: int, most: int | None) -> tuple[memoryview | None, bool]:
    """The body of the record that begins at a byte; None if it isn't there, or not as it was
    written. And whether it has more than `most` bytes: then it isn't read."""
    if end - at < BEFORE:
        return None, False
    size, bulk, crc = HEAD.unpack_from(whole, at)
    (check,) = CHECK.unpack_from(whole, at + HEAD.size)
    first = at + BEFORE
    if zlib.crc32(whole[at : at + HEAD.size]) != check or size > end - first or bulk > size:
        return None, False
    body = whole[first : first + size]
    is_left_out = most is not None and size > most
    is_sound = is_left_out or _check([body[: size - bulk]], body[size - bulk :]) == crc
    return body if is_sound else None, is_left_out


def _check(parts: Sequence[Frame], bulk: Frame) -> int:
    """The check of a body of these parts and this bulk."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    bulk = memoryview(bulk)
    whole = len(bulk) - len(bulk) % BLOCK
    words = np.frombuffer(bulk[:whole], "<u8").reshape(-1, BLOCK // 8)
    return zlib.crc32(bulk[whole:], zlib.crc32(words.sum(axis=1, dtype="<u8"), crc))


def valid_length(path: Path) -> int:
    """Where the last record of a segment that is there in full ends; 0 where not even its beginning
    is."""
    end = START.size if os.path.getsize(path) >= START.size else 0
    for end, _ in read(path):  # noqa: B007
        pass
    return end
