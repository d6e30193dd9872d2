"""Memory that processes of one machine lend each other: what is large in a message lies there, and
only where it is goes through the socket.

Each direction of a connection has a memory of its own, which the sender of that direction makes and
alone writes data into; the other one maps it. It is cut into slots of a piece each. A message names
its slot and the number of the slot's use; when the receiver has dropped all that it has got of the
slot, it writes the last number into the table before the slots. The slot is free for other data
when the sender needs it no more and its last number is there. Where none is free, or the memory
can't be opened on the other side, the data goes through the socket.

The memory has no path (Linux's memfd) and goes with the last process that has it. The kernel lets
processes of the same user open it only; and since it can't be shrunk, reading it is safe whatever
its maker does. It may change while it is read: what has to stay as it was checked is copied first.

What is dropped is noted down by C alone, and looked at later: a signal's exception (Ctrl-C) that
was raised where an object is being deleted would be lost.
"""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.kvstore.wire import PIECE_BYTES, SMALL, Frame, buffer_of, bytes_of, size_of

SLOTS = 32
SLOT = PIECE_BYTES  # bytes
TABLE = mmap.PAGESIZE  # bytes before the first slot: of each the number of its last use that is over
SIZE = TABLE + SLOTS * SLOT
POSSIBLE = hasattr(os, "memfd_create")
if POSSIBLE:
    import fcntl

# What begins a message that MARK says is of loans: no MessagePack begins so.
MARK = b"\xc1"
_OFFER = struct.Struct("<2sII8s")  # kind; the maker's process, its descriptor of the memory, the memory's name
_LOAN = struct.Struct("<2s8sIQII")  # kind; the memory's name, slot, number of its use, bytes of two frames
OFFER, LOAN = MARK + b"o", MARK + b"l"
NONE = (1 << 32) - 1  # as the bytes of the second frame: there is only one


class _Watched(weakref.ref):  # type: ignore[type-arg]
    """Tells when what has to do with a use of a slot is dropped."""

    __slots__ = ("number", "slot")
    slot: int
    number: int  # of the message, at the receiver


class _Slot:
    """A slot, as its owner knows it."""

    __slots__ = ("memory", "number", "owner", "sent", "use")

    def __init__(self, number: int, memory: memoryview) -> None:
        self.number, self.memory = number, memory
        self.use = 0  # the number of its last; each message that says where it is is one
        self.sent = False  # whether that has been sent, so that the receiver says when it is over
        self.owner: _Watched | None = None  # watches the Loan that there is of it


class Loan:
    """A slot, for as long as its owner writes into it or may send it again."""

    __slots__ = ("__weakref__", "lender", "sizes", "slot")

    def __init__(self, lender: Lender, slot: _Slot, sizes: Sequence[int]) -> None:
        self.lender, self.slot, self.sizes = lender, slot, sizes

    def frames(self) -> list[Lent]:
        """Its memory, one frame after the other."""
        at, found = 0, []
        for size in self.sizes:
            found.append(Lent(self, self.slot.memory[at : at + size]))
            at += _aligned(size)
        return found

    def send(self, header: bytes, post: Callable[[list[Frame]], bool]) -> bool:
        """Sends a message that it carries the data of. One that is sent again is another use: the
        receiver may have dropped the one and hold the other, or still have to hear of it."""
        first, second = self.sizes if len(self.sizes) == 2 else (*self.sizes, NONE)
        use = self.slot.use + self.slot.sent
        sent = post([_LOAN.pack(LOAN, self.lender.name, self.slot.number, use, first, second) + header])
        if sent:
            self.slot.use, self.slot.sent = use, True
        return sent


class Lent:
    """A frame in a loan."""

    __slots__ = ("buffer", "loan")

    def __init__(self, loan: Loan, buffer: memoryview) -> None:
        self.loan, self.buffer = loan, buffer

    def __len__(self) -> int:
        return len(self.buffer)

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)


class Lender:
    """A memory of this process's that another one reads. Raises OSError where there can't be
    one."""

    def __init__(self) -> None:
        if not POSSIBLE:
            raise OSError("this system has no memory to lend")
        self.name = os.urandom(8)
        self._file = os.memfd_create(_title(self.name), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.close = weakref.finalize(self, os.close, self._file)  # nobody opens it any more
        os.ftruncate(self._file, SIZE)
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        memory = memoryview(mmap.mmap(self._file, SIZE))
        self._over = memory[: 8 * SLOTS].cast("Q")
        starts = range(TABLE, SIZE, SLOT)
        self._slots = [_Slot(number, memory[start : start + SLOT]) for number, start in enumerate(starts)]
        self._dropped: deque[_Watched] = deque()

    def offer(self) -> bytes:
        """What lets another process open it."""
        return _OFFER.pack(OFFER, os.getpid(), self._file, self.name)

    def loan(self, sizes: Sequence[int]) -> Loan | None:
        """Room for one or two frames of so many bytes; None where there is none."""
        if sum(map(_aligned, sizes)) > SLOT:
            return None
        while self._dropped:
            self._ended(self._slots[self._dropped.popleft().slot])
        for slot in self._slots:  # the first that is free, which the caches know best
            if slot.owner is None and self._over[slot.number] >= slot.use:
                loan = Loan(self, slot, sizes)
                watched = _Watched(loan, self._dropped.append)
                watched.slot = slot.number
                slot.use, slot.sent, slot.owner = slot.use + 1, False, watched
                return loan
        return None

    def _ended(self, slot: _Slot) -> None:
        """This process needs a slot no more."""
        slot.owner = None
        if not slot.sent:
            self._over[slot.number] = slot.use


class Borrowed:
    """Another process's memory, by its offer. Raises OSError where it can't be opened, or isn't
    what it should be."""

    def __init__(self, offer: bytes) -> None:
        if len(offer) != _OFFER.size:
            raise OSError("this is no offer of memory")
        _, process, number, self.name = _OFFER.unpack(offer)
        self._path = path = f"/proc/{process}/fd/{number}"
        if not self.alive:
            raise OSError(f"{path} isn't the memory that is offered")
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(file).st_size != SIZE or not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise OSError(f"{path} isn't memory as this protocol has it")
            self._over = memoryview(mmap.mmap(file, TABLE))[: 8 * SLOTS].cast("Q")
            self._slots = mmap.mmap(file, SLOTS * SLOT, prot=mmap.PROT_READ, offset=TABLE)
        finally:
            os.close(file)
        self._held: dict[int, _Watched] = {}  # by the message's number: watches what came with it
        self._messages = 0
        self._holds = [0] * SLOTS  # messages of each slot that are held
        self._uses = [0] * SLOTS  # the last use of each that has come
        self._dropped: deque[_Watched] = deque()

    @property
    def alive(self) -> bool:
        """Whether its maker may still have it."""
        try:
            return os.readlink(self._path).startswith(f"/memfd:{_title(self.name)}")
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:  # nobody can say
            return True

    def frames(self, head: bytes) -> list[Frame] | None:
        """What a loan carries, not copied; None where there is no such loan. The slot is given back
        when all frames of all its uses that have come are dropped."""
        self.settle()
        _, name, slot, use, *sizes = _LOAN.unpack_from(head)
        sizes = [size for size in sizes if size != NONE]
        nbytes = sum(map(_aligned, sizes))
        if name != self.name or slot >= SLOTS or not 0 < nbytes <= SLOT:
            return None
        whole: Any = np.frombuffer(self._slots, np.uint8, nbytes, slot * SLOT)
        self._messages += 1
        watched = self._held[self._messages] = _Watched(whole, self._dropped.append)
        watched.slot, watched.number = slot, self._messages
        self._holds[slot] += 1
        self._uses[slot] = max(use, self._uses[slot])
        view, at, found = memoryview(whole), 0, []
        for size in sizes:
            found.append(view[at : at + size])
            at += _aligned(size)
        return found

    def settle(self) -> None:
        """Lets the other one know what has been dropped."""
        while self._dropped:
            gone = self._dropped.popleft()
            del self._held[gone.number]
            self._holds[gone.slot] -= 1
            if not self._holds[gone.slot]:
                self._over[gone.slot] = self._uses[gone.slot]


class Loans:
    """The loans of one connection, both ways. They begin when each side has opened the other's
    memory: the one that connects offers its own, the other answers with an offer where it can open
    that, and then the first opens this and lends; who is lent may lend. Raises OSError where this
    process has no memory to lend, or can't open what is offered.

    `theirs`: the offer that this side has got, if it is the second.
    """

    def __init__(self, theirs: bytes | None = None) -> None:
        self._mine = Lender()
        self._theirs = None if theirs is None else Borrowed(theirs)
        self._agreed = False  # whether the other has opened mine

    @property
    def alive(self) -> bool:
        """Whether the other side may still have its memory."""
        return self._theirs is None or self._theirs.alive

    def offer(self) -> bytes:
        """A message: what lets the other side open this one's memory."""
        return self._mine.offer()

    def is_of(self, offer: bytes) -> bool:
        """Whether it has been made by such an offer."""
        return self._theirs is not None and offer.endswith(self._theirs.name)

    def answered(self, offer: bytes) -> None:
        """The other side has opened this one's memory, and offers its own. Raises OSError where
        that can't be opened."""
        if not self.is_of(offer):
            self._theirs = Borrowed(offer)
        self._agreed = True

    def received(self, message: bytes) -> list[Frame] | None:
        """The frames of a message that came with a loan; None where it can't be had."""
        data = None if self._theirs is None or len(message) < _LOAN.size else self._theirs.frames(message)
        if data is None:
            return None
        self._agreed = True
        return [message[_LOAN.size :], *data]

    def close(self) -> None:
        """Says that the other side may give up this one's memory."""
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
    """New memory of this process, for frames of so many bytes."""
    return [bytes_of(np.empty(size, np.uint8)) for size in sizes]


def _aligned(size: int) -> int:
    """The bytes after which another frame begins."""
    return -(-size // 8) * 8


def _title(name: bytes) -> str:
    return f"mxopt-{name.hex()}"
