"""What comes in several messages: of it nothing counts until all is here."""

from __future__ import annotations

from collections.abc import Sequence

from mxopt.errors import ProtocolError
from mxopt.kvstore import wire
from mxopt.kvstore.wire import Frame, Key

LENT = 16  # frames that are kept where they lie, which may be memory that the worker has lent; others are copied

What = tuple[str, Key]  # the message's name, and the key or number it is about


class Arriving:
    """What one worker is sending in parts, one thing at a time: `what` it is, of how many (bytes or
    rows) in all, and how many of them are here."""

    def __init__(self) -> None:
        self._what: What | None = None
        self._total = self._size = 0
        self._frames: list[list[Frame]] = []  # of each array those that have come

    def gather(
        self, what: What, offset: int, total: int, size: int, frames: Sequence[Frame]
    ) -> list[list[Frame]] | None:
        """Takes `size` of the `total` of something, which follow on `offset` before them. Returns
        with the last of it the frames that have come of each array; None before. Raises
        ProtocolError where it doesn't follow on: all of it is refused then."""
        before, self._what = self._what, None
        here = self._size if before == what else 0
        came, self._frames = self._frames, []
        if size > total - offset or (size == 0 and total > 0):
            raise ProtocolError(f"{what[0]} of {what[1]!r}: {size} after {offset} of {total}")
        if offset == 0:
            here, came = 0, [[] for _ in frames]
        elif (before, self._total, here) != (what, total, offset):
            raise ProtocolError(f"{what[0]} of {what[1]!r}: what comes after {offset} of {total} came, {here} are here")
        for kept, frame in zip(came, frames, strict=True):
            kept.append(frame if len(kept) < LENT else bytes(wire.buffer_of(frame)))
        if here + size == total:
            return came
        self._what, self._total, self._size, self._frames = what, total, here + size, came
        return None


def joined(frames: Sequence[Frame]) -> Frame:
    """What has come in several frames, as one."""
    return frames[0] if len(frames) == 1 else b"".join(map(wire.buffer_of, frames))
