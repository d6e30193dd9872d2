"""Memory that processes of one machine lend each other: what is large in a message lies there, and
only where it is goes through the socket.

Each direction of a connection has a memory of its own, which the sender of that direction makes and
alone writes data into; the other one maps it. It is cut into slots of a piece each; a message has
one, or several that follow each other. It names the first and the number of that one's use; when
the receiver has dropped all that it has got of it, it writes the last number into the table before
the slots. All of them are free for other data when the sender needs them no more and that number is
there. Where none is free, or the memory can't be opened on the other side, the data goes through
the socket.

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
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.kvstore.fence import Fence
from mxopt.kvstore.wire import PIECE_BYTES, Frame

SLOTS = 32
SLOT = PIECE_BYTES  # bytes
TABLE = mmap.PAGESIZE  # bytes before the first slot: of each the number of its last use that is over
SIZE = TABLE + SLOTS * SLOT
LINE = 64  # bytes; a frame begins at a multiple of it
POSSIBLE = hasattr(os, "memfd_create")
if POSSIBLE:
    import fcntl

# How a mapping is made that keeps no descriptor; before Python 3.13 each keeps one.
UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
# What begins a message that MARK says is of loans: no MessagePack begins so.
MARK = b"\xc1"
# Kind; the maker's process; its descriptors of the memory, of a pipe to the other side, of one from
# there; the memory's name.
_OFFER = struct.Struct("<2s4I8s")
_LOAN = struct.Struct("<2s8sIQII")  # kind; the memory's name, slot, number of its use, bytes of two frames
OFFER, LOAN = MARK + b"o", MARK + b"l"
NONE = (1 << 32) - 1  # as the bytes of the second frame: there is only one; as a descriptor: there are no pipes


class _Watched(weakref.ref):  # type: ignore[type-arg]
    """Reports when an object that uses a slot is dropped."""

    __slots__ = ("number", "slot")
    slot: int  # the first
    number: int  # of slots; at the receiver of the message


class _Slot:
    """A slot, as its owner sees it."""

    __slots__ = ("number", "owner", "sent", "until", "use")

    def __init__(self, number: int) -> None:
        self.number = number
        self.use = 0  # the number of its last as the first of a loan's; each message that names it is one
        self.sent = False  # whether that has been sent, so that the receiver says when it is over
        self.owner: _Watched | None = None  # watches the Loan that there is of it
        self.until = number, 0  # the receiver needs it until this slot's use of this number is over


class Loan:
    """Slots that follow each other, for as long as their owner writes into them or may send them
    again."""

    __slots__ = ("__weakref__", "lender", "sizes", "slots")

    def __init__(self, lender: Lender, slots: Sequence[_Slot], sizes: Sequence[int]) -> None:
        self.lender, self.slots, self.sizes = lender, slots, sizes

    def frames(self) -> list[Lent]:
        """Its memory, one frame after the other."""
        at, found = TABLE + SLOT * self.slots[0].number, []
        for size in self.sizes:
            found.append(Lent(self, self.lender.memory[at : at + size]))
            at += _aligned(size)
        return found

    def send(self, header: bytes, post: Callable[[list[Frame]], bool]) -> bool:
        """Sends a message that it carries the data of. One that is sent again is another use: the
        receiver may have dropped the one and hold the other, or still have to hear of it."""
        first, second = self.sizes if len(self.sizes) == 2 else (*self.sizes, NONE)
        slot = self.slots[0]
        use = slot.use + slot.sent
        sent = post([_LOAN.pack(LOAN, self.lender.name, slot.number, use, first, second) + header])
        if sent:
            slot.use, slot.sent = use, True
            for each in self.slots:
                each.until = slot.number, use
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
    """A memory of this process's that another one reads, of a new name or that which it answers.
    Raises OSError if there can't be one."""

    def __init__(self, name: bytes | None = None) -> None:
        if not POSSIBLE:
            raise OSError("this system has no memory to lend")
        self.name = os.urandom(8) if name is None else name
        self._file = os.memfd_create(_title(self.name), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.close = weakref.finalize(self, os.close, self._file)  # nobody opens it any more
        os.ftruncate(self._file, SIZE)
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.memory = memoryview(mmap.mmap(self._file, SIZE, **UNTRACKED))
        self._over = self.memory[: 8 * SLOTS].cast("Q")
        self._slots = list(map(_Slot, range(SLOTS)))
        self._dropped: deque[_Watched] = deque()

    def offer(self, writes: int = NONE, reads: int = NONE) -> bytes:
        """The offer by which another process can open it, and the pipes with these ends."""
        return _OFFER.pack(OFFER, os.getpid(), self._file, writes, reads, self.name)

    def loan(self, sizes: Sequence[int]) -> Loan | None:
        """Room for one or two frames of these sizes in bytes; None if there is none."""
        while self._dropped:
            self._ended(self._dropped.popleft())
        count, free = -(-sum(map(_aligned, sizes)) // SLOT), list[_Slot]()
        for slot in self._slots:  # the first that are free, which the caches know best
            if slot.owner is not None or self._over[slot.until[0]] < slot.until[1]:
                free.clear()
                continue
            free.append(slot)
            if len(free) == count:
                return self._lent(free, sizes)
        return None

    def _lent(self, slots: list[_Slot], sizes: Sequence[int]) -> Loan:
        """A loan of slots, which are free."""
        loan, first = Loan(self, slots, sizes), slots[0]
        watched = _Watched(loan, self._dropped.append)
        watched.slot, watched.number = first.number, len(slots)
        first.use, first.sent = first.use + 1, False
        for slot in slots:
            slot.owner, slot.until = watched, (first.number, first.use)
        return loan

    def _ended(self, watched: _Watched) -> None:
        """Notes that this process no longer needs the slots of a loan."""
        first = self._slots[watched.slot]
        for slot in self._slots[watched.slot : watched.slot + watched.number]:
            slot.owner = None
        if not first.sent:
            self._over[first.number] = first.use


class Borrowed:
    """Another process's memory, by its offer. Raises OSError if it can't be opened, or isn't
    what it should be.

    Attributes
    ----------
    process : the number of that process
    pipes : its descriptors of pipes, or NONE
    """

    def __init__(self, offer: bytes) -> None:
        if len(offer) != _OFFER.size:
            raise OSError("this is no offer of memory")
        _, self.process, number, *self.pipes, self.name = _OFFER.unpack(offer)
        process = self.process
        self._path = path = f"/proc/{process}/fd/{number}"
        if not self.alive:
            raise OSError(f"{path} isn't the memory that is offered")
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(file).st_size != SIZE or not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise OSError(f"{path} isn't memory as this protocol has it")
            self._over = memoryview(mmap.mmap(file, TABLE, **UNTRACKED))[: 8 * SLOTS].cast("Q")
            self._slots = mmap.mmap(file, SLOTS * SLOT, prot=mmap.PROT_READ, offset=TABLE, **UNTRACKED)
        finally:
            os.close(file)
        self._held: dict[int, _Watched] = {}  # by the message's number: watches what came with it
        self._messages = 0
        self._holds = [0] * SLOTS  # messages that are held of each slot as the first
        self._uses = [0] * SLOTS  # the last use of each that has come
        self._dropped: deque[_Watched] = deque()
        self._fence = Fence()

    @property
    def alive(self) -> bool:
        """Whether its maker may still have it."""
        try:
            return os.readlink(self._path).startswith(f"/memfd:{_title(self.name)}")
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:  # nobody can say
            return True

    def received(self, message: bytes) -> list[Frame] | None:
        """The header of a message that came with a loan, and what that carries, not copied; None
        where there is no such loan. The slot is given back when all frames of all its uses that
        have come are dropped."""
        if len(message) < _LOAN.size:
            return None
        self.settle()
        _, name, slot, use, *sizes = _LOAN.unpack_from(message)
        sizes = [size for size in sizes if size != NONE]
        nbytes = sum(map(_aligned, sizes))
        if name != self.name or slot >= SLOTS or not 0 < nbytes <= (SLOTS - slot) * SLOT:
            return None
        whole: Any = np.frombuffer(self._slots, np.uint8, nbytes, slot * SLOT)
        self._messages += 1
        watched = self._held[self._messages] = _Watched(whole, self._dropped.append)
        watched.slot, watched.number = slot, self._messages
        self._holds[slot] += 1
        self._uses[slot] = max(use, self._uses[slot])
        found: list[Frame] = [message[_LOAN.size :]]
        view, at = memoryview(whole), 0
        for size in sizes:
            found.append(view[at : at + size])
            at += _aligned(size)
        return found

    def settle(self) -> None:
        """Tells the owner which uses are over."""
        while self._dropped:
            gone = self._dropped.popleft()
            del self._held[gone.number]
            self._holds[gone.slot] -= 1
            if not self._holds[gone.slot]:
                self._fence.passed()
                self._over[gone.slot] = self._uses[gone.slot]


def _aligned(size: int) -> int:
    """The bytes after which another frame begins."""
    return -(-size // LINE) * LINE


def _title(name: bytes) -> str:
    return f"mxopt-{name.hex()}"
