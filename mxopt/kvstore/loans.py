"""The loans of one connection, in both directions; see `lending`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mxopt.kvstore.lending import NONE, Borrowed, Lender, Lent, Loan
from mxopt.kvstore.pipes import Pipes
from mxopt.kvstore.wire import SMALL, Frame, buffer_of, bytes_of, size_of


class Loans:
    """The loans of one connection, both ways. They begin when each side has opened the other's
    memory: the one that connects offers its own, the other answers with an offer where it can open
    that, and then the first opens this and lends; who is lent may lend. The second memory has the
    first one's name. Raises OSError if this process has no memory to lend, or can't open what is
    offered.

    `theirs`: the offer that this side has got, if it is the second.

    Attributes
    ----------
    pipes : Pipes or None
        Those beside the connection: the first side's are opened with its memory.
    """

    def __init__(self, theirs: bytes | None = None) -> None:
        self._theirs = None if theirs is None else Borrowed(theirs)
        self._mine = Lender(None if self._theirs is None else self._theirs.name)
        self._agreed = False  # whether the other has opened mine
        self.pipes: Pipes | None = None
        if self._theirs is None:
            self.pipes = Pipes.made()
        elif NONE not in self._theirs.pipes:
            self.pipes = Pipes.opened(self._theirs.process, *self._theirs.pipes)

    @property
    def alive(self) -> bool:
        """Whether the other side may still have its memory."""
        return self._theirs is None or self._theirs.alive

    def offer(self) -> bytes:
        """The message that lets the other side open this one's memory."""
        if self.pipes is None or self._theirs is not None:
            return self._mine.offer()
        return self._mine.offer(self.pipes.writes, self.pipes.reads)

    def is_of(self, offer: bytes) -> bool:
        """Whether these loans were made by this offer."""
        return self._theirs is not None and offer.endswith(self._theirs.name)

    def answered(self, offer: bytes) -> None:
        """The other side has opened this one's memory, and offers its own. Raises OSError if
        that can't be opened, or answers another offer: one from before the line was made again."""
        if not offer.endswith(self._mine.name):
            raise OSError("this answers another offer")
        if not self.is_of(offer):
            self._theirs = Borrowed(offer)
        self._agreed = True

    def received(self, message: bytes) -> list[Frame] | None:
        """The frames of a message that came with a loan; None if they can't be had."""
        frames = None if self._theirs is None else self._theirs.received(message)
        self._agreed |= frames is not None
        return frames

    def close(self) -> None:
        """Tells the other side that it may give up this one's memory."""
        self._mine.close()

    def room(self, sizes: Sequence[int]) -> list[Frame]:
        """Memory for the arrays of one message, which is sent from there, see `plain_room`."""
        loan = self._mine.loan(sizes) if self._agreed and sum(sizes) >= SMALL else None
        return plain_room(sizes) if loan is None else list(loan.frames())

    def send(self, frames: list[Frame], post: Callable[[list[Frame]], bool]) -> bool:
        """Sends a message by `post`, its arrays by a loan where one can be had; whether it has left
        is what `post` says."""
        if self._theirs is not None:
            self._theirs.settle()
        header, *data = frames
        loan = self._loan(data)
        if loan is None:
            return post([header, *map(buffer_of, data)])
        return loan.send(header, post)

    def _loan(self, data: list[Frame]) -> Loan | None:
        """The loan in which arrays lie, or are put."""
        if not data or not self._agreed:
            return None
        if type(data[0]) is Lent and data[0].loan.lender is self._mine:
            found: Loan = data[0].loan
            return found
        loan = self._mine.loan([*map(size_of, data)])
        if loan is not None:
            for mine, frame in zip(loan.frames(), data, strict=True):
                mine.buffer[:] = buffer_of(frame)
        return loan


def plain_room(sizes: Sequence[int]) -> list[Frame]:
    """New memory of this process, for frames of these sizes in bytes."""
    return [bytes_of(np.empty(size, np.uint8)) for size in sizes]
