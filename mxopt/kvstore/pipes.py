"""Pipes beside the connection of two processes of one machine: a message goes straight from the
thread that sends it to the one that takes it, where by a socket two threads of ZeroMQ's hand it on.

The side that connects makes both pipes, one each way, and names them in its offer of memory (see
`lending`); the other opens them as it opens that. The first sends small messages by its pipe. The
second answers by the other one what has room there at once, and by the socket what hasn't: it never
waits.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import struct
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from mxopt.errors import ProtocolError
from mxopt.kvstore.wire import MAX_FRAME, MAX_HEADER, SMALL, Frame

POSSIBLE = hasattr(os, "pipe2")
if POSSIBLE:
    import fcntl
    import termios

PATIENCE = 3.0  # seconds that a message waits for room in a pipe
ROOM = 256 << 10  # bytes of the pipe to a server
READ = 64 << 10  # bytes that are read at once
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
NONE = (1 << 32) - 1
_LENGTHS = struct.Struct("<3I")  # of a message's frames, which follow; NONE where there is none


class Pipes:
    """One side's ends of two pipes: it reads from one file, and writes to another.

    `others` are files that stay open as long. What writes to a pipe that nobody reads is killed by
    a signal, unless it reads it itself.
    """

    def __init__(self, reads: int, writes: int, others: Sequence[int] = ()) -> None:
        self.reads, self.writes = reads, writes
        self.close = weakref.finalize(self, _close, (reads, writes, *others))
        self._part = b""  # of a message that has come in part
        self._large: memoryview | None = None  # room for all of a large one, of which a part is here
        self._have = 0
        # What an empty one takes at once. A user who has many gets small ones from Linux.
        self._whole = min(SMALL + READ // 4, fcntl.fcntl(writes, fcntl.F_GETPIPE_SZ))

    @classmethod
    def made(cls) -> Pipes:
        """New ones. Raises OSError where there can't be any."""
        there, writes = os.pipe2(FLAGS)
        try:
            reads, back = os.pipe2(FLAGS)
        except OSError:
            _close((there, writes))
            raise
        os.close(back)  # whoever opens it makes the first writer
        with contextlib.suppress(OSError):  # it has less room then
            fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, ROOM)
        return cls(reads, writes, [there])

    @classmethod
    def opened(cls, process: int, writes: int, reads: int) -> Pipes:
        """The other side's, by the files from which that process writes and reads. Raises OSError
        where they can't be opened, or are none."""
        files: list[int] = []
        try:
            for number, mode in ((writes, os.O_RDONLY), (reads, os.O_WRONLY)):
                files.append(os.open(f"/proc/{process}/fd/{number}", mode | FLAGS | os.O_NOCTTY))
                if not stat.S_ISFIFO(os.fstat(files[-1]).st_mode):
                    raise OSError(f"file {number} of process {process} is no pipe")
            if os.path.sameopenfile(*files):  # whose reader gets its own answers
                raise OSError("one pipe for both ways")
        except OSError:
            _close(files)
            raise
        return cls(files[0], files[1])

    @property
    def open(self) -> bool:
        """Whether they haven't been closed."""
        return self.close.alive

    def send(self, frames: Sequence[Frame]) -> bool:
        """Sends a message, and waits for room; False where there is none for long: a part of it may
        be in the pipe then."""
        rest = _parts(frames)
        while rest:
            try:
                written = os.writev(self.writes, rest)
            except BlockingIOError:
                if not _has_room(self.writes):
                    return False
                continue
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = memoryview(rest[0])[written:]
        return True

    def offer(self, frames: Sequence[Frame]) -> bool:
        """Sends a message where there is room for all of it at once; whether there is. So it is for
        what the system takes whole or not at all, and for a little more in an empty pipe. Raises
        OSError where only a part of it is in the pipe, so that nothing can follow: the other side
        may have made the pipe smaller."""
        parts = _parts(frames)
        size = sum(map(len, parts))
        try:
            if size > select.PIPE_BUF and (size > self._whole or _bytes_in(self.writes)):
                return False
            written = os.writev(self.writes, parts)
        except OSError:  # it is full, or nobody reads it any more
            return False
        if written < size:
            raise OSError(f"the pipe has taken {written} bytes of a message of {size}")
        return True

    def take(self) -> list[list[Frame]]:
        """The messages that are here, or some of them. Raises OSError where nobody writes any
        more, ProtocolError where these are no messages."""
        try:
            if self._large is not None:
                return self._take_large(self._large)
            came = os.read(self.reads, READ)
        except BlockingIOError:
            return []
        if not came:
            raise OSError("nobody writes to the pipe any more")
        data, at, found = self._part + came, 0, []
        while len(data) - at >= _LENGTHS.size:
            lengths = _lengths(data, at)
            end = at + _LENGTHS.size + sum(lengths)
            if end > len(data):
                if end - at > READ:
                    self._large, self._have = memoryview(bytearray(end - at)), len(data) - at
                    self._large[: self._have] = data[at:]
                    at = len(data)
                break
            found.append(_cut(data, at, lengths))
            at = end
        self._part = data[at:]
        return found

    def _take_large(self, large: memoryview) -> list[list[Frame]]:
        came = os.readv(self.reads, [large[self._have :]])
        if not came:
            raise OSError("nobody writes to the pipe any more")
        self._have += came
        if self._have < len(large):
            return []
        self._large = None
        return [_cut(large, 0, _lengths(large, 0))]


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def _parts(frames: Sequence[Frame]) -> list[Any]:
    """A message as what is written of it."""
    lengths = [*map(len, frames), NONE, NONE]
    return [_LENGTHS.pack(*lengths[:3]), *filter(len, frames)]


def _lengths(data: Any, at: int) -> list[int]:
    """Of the frames of the message that begins there."""
    lengths = [length for length in _LENGTHS.unpack_from(data, at) if length != NONE]
    if not lengths or lengths[0] > MAX_HEADER or max(lengths) > MAX_FRAME:
        raise ProtocolError(f"a message with frames of {lengths} bytes")
    return lengths


def _cut(data: Any, at: int, lengths: Sequence[int]) -> list[Frame]:
    """The frames of a message, the first as bytes."""
    at += _LENGTHS.size
    frames: list[Frame] = []
    for length in lengths:
        frames.append(data[at : at + length])
        at += length
    frames[0] = bytes(frames[0])
    return frames


def _bytes_in(pipe: int) -> int:
    found = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return int.from_bytes(found, sys.byteorder)


def _has_room(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(PATIENCE * 1000))
