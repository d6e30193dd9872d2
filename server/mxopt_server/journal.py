"""A server's journal: files with a record of each change of its state."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from mxopt.document import content_of, parts_of
from mxopt.errors import StatesError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.wire import Frame
from mxopt_server import records, segments
from mxopt_server.epoch_folder import SEGMENT, Folder, name
from mxopt_server.failures import Applying

LENGTH = struct.Struct("<I")  # of a record's header, which its arrays follow
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in records.Record.__args__}


class Unkept(BaseException):
    """A record can't be written (a full disk). The server ends, before anybody is told that it was
    kept."""


class Journal:
    """Appends records to segments in `folder`, from number `number` on. With `fsync` what is
    committed survives a power cut; without, the death of the process."""

    def __init__(self, folder: Folder, fsync: bool) -> None:
        self.folder, self.fsync = folder, fsync
        self.together = fsync
        self.number = folder.next_segment()
        self._ended: dict[int, int] = {}  # bytes of this epoch's segments before the present one
        self._dirty = False
        self.applying = Applying(folder.path)
        self._writer = self._open()

    def nbytes(self, first: int = 0) -> int:
        """What there is to be read again from segment `first` on."""
        ended = sum(size for number, size in self._ended.items() if number >= first)
        return self.folder.nbytes(first) + ended + self._writer.size

    def append(self, record: records.Record) -> None:
        """Appends a record, to be applied afterwards. Raises Unkept if it can't be written."""
        try:
            if self._writer.size >= segments.SIZE:
                self._next()
            self._writer.append(encode(record))
        except OSError as error:
            raise Unkept(f"the journal {self._writer.path} can't be written: {error}") from error
        self._dirty = True
        self.applying.begin((self.number, self._writer.size))

    def commit(self) -> None:
        """Returns once all appended records are kept. Raises Unkept if that fails."""
        if self._dirty:
            self._last()
            self.applying.end()

    def _last(self) -> None:
        if self.fsync and self._dirty:
            try:
                self._writer.sync()
            except OSError as error:
                raise Unkept(f"the journal {self._writer.path} can't be written to the disk: {error}") from error
        self._dirty = False

    def rotate(self) -> int:
        """Begins a segment, whose number it returns: what a checkpoint of this moment lacks will be
        from there on."""
        try:
            self._next()
        except OSError as error:
            raise Unkept(f"a segment of the journal can't be begun in {self.folder.path}: {error}") from error
        return self.number

    def drop(self, first: int) -> None:
        """Forgets segments before number `first`, which are no longer there."""
        self._ended = {number: size for number, size in self._ended.items() if number >= first}

    def close(self) -> None:
        """Ends the last segment."""
        self._last()
        self._writer.close()
        self.applying.close()

    def _next(self) -> None:
        self._last()
        self._writer.close()
        self._ended[self.number] = self._writer.size
        self.number += 1
        self._writer = self._open()

    def _open(self) -> segments.Writer:
        return segments.Writer(self.folder.path / name(self.number, SEGMENT))


def is_cut(number: int) -> Callable[[memoryview], bool]:
    """Whether these bytes are the record of a cut."""
    expected = b"".join(encode(records.Cut(number)))
    return lambda body: len(body) == len(expected) and body == expected


def encode(record: records.Record) -> list[Frame]:
    """A record as parts of bytes; its arrays aren't copied."""
    fields = [getattr(record, field.name) for field in dataclasses.fields(record)]
    fields = [[type(each).__name__, str(each)] if isinstance(each, Exception) else each for each in fields]
    header, arrays = parts_of({type(record).__name__: fields})
    return [LENGTH.pack(len(header)), header, *(wire.bytes_of(np.ascontiguousarray(array)) for array in arrays)]


def decode(body: memoryview) -> records.Record:
    """The record in these bytes. Raises StatesError if they aren't one."""
    try:
        (length,) = LENGTH.unpack_from(body)
        rest = body[LENGTH.size :]
        ((kind, fields),) = content_of(rest[:length], rest[length:]).items()
        made: records.Record = KINDS[kind](*fields)
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise StatesError(f"a record of the journal can't be read: {error!r}") from error
    if isinstance(made, records.Update) and made.error is not None:
        told: Any = made.error  # as it was encoded
        made.error = error_of(m.Refused(0, str(told[0]), str(told[1]), None))
    return made
