"""What comes in several messages: of it nothing counts until all is here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mxopt.errors import ProtocolError
from mxopt.kvstore import wire
from mxopt.kvstore.wire import Frame, Key

What = tuple[str, Key]  # the message's name, and the key or number it is about


class Arriving:
    """What one worker is sending in parts, one thing at a time: `what` it is, of how many (bytes or
    rows) in all, and how many of them are here."""

    def __init__(self) -> None:
        self._what: What | None = None
        self._total = self._size = 0
        self._buffers: list[np.ndarray] = []  # for the frames, joined; what hasn't come of them takes no memory

    def gather(self, what: What, offset: int, total: int, size: int, frames: Sequence[Frame]) -> list[Frame] | None:
        """Takes `size` of the `total` of something, which follow on `offset` before them. Returns
        the frames with the last of it, joined; None before. Raises ProtocolError if it doesn't
        follow on: all of it is refused then."""
        before, self._what = self._what, None
        here = self._size if before == what else 0
        buffers, self._buffers = self._buffers, []
        if size > total - offset or (size == 0 and total > 0):
            raise ProtocolError(f"{what[0]} of {what[1]!r}: {size} after {offset} of {total}")
        if offset == 0 and size == total:
            return list(frames)
        if offset == 0:
            here, buffers = 0, [np.empty(wire.size_of(frame) // size * total, np.uint8) for frame in frames]
        elif (before, self._total, here) != (what, total, offset):
            raise ProtocolError(f"{what[0]} of {what[1]!r}: what comes after {offset} of {total} came, {here} are here")
        for buffer, frame in zip(buffers, frames, strict=True):
            each = wire.size_of(frame) // size
            buffer[offset * each : (offset + size) * each] = np.frombuffer(wire.buffer_of(frame), np.uint8)
        if here + size == total:
            return list(buffers)
        self._what, self._total, self._size, self._buffers = what, total, here + size, buffers
        return None
