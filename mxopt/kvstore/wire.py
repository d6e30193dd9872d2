"""What messages are made of: the types of their fields, and arrays as frames."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from mxopt import plain
from mxopt.engine import arrays
from mxopt.errors import ArgumentError, ProtocolError, counted
from mxopt.typing import Plain

VERSION = 2
PIECE_BYTES = 1 << 20  # bytes of one piece of a large array
MAX_HEADER = 1 << 20
MAX_FRAME = 4 << 20
ROW_BYTES = MAX_FRAME  # bytes of a row of a key that is stored by rows
MAX_TEXT = 4096
WINDOW = 8 << 20  # bytes of these and their answers, not counting the last
MAX_CONFIG = 32 << 20  # bytes of an optimizer's config; one that can't be read is copied once as that is found
CHUNK_BYTES = 4 << 20  # bytes of a document in one message
REQUESTS = 2048  # requests of a worker to one server that are without an answer
SMALL = 1 << 15  # bytes below which copying an array is cheaper than a frame of its own
INT64 = np.dtype(np.int64)
DTYPES = {name: dtype for dtype, name in arrays.DTYPES.items()}

# The types of fields.

Frame = Any  # bytes, or anything with a buffer
LARGEST_FLOAT = sys.float_info.max
LARGEST = (1 << 63) - 1
FURTHEST = 1 << 62  # from which members count on
Whole = Annotated[int, Meta(ge=0, le=LARGEST)]
Float = Annotated[float, Meta(ge=-LARGEST_FLOAT, le=LARGEST_FLOAT)]  # finite
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Key = int | Text
KeyList = Annotated[list[Key], Meta(min_length=1)]
Texts = list[Text]
Wholes = list[Whole]
Lacks = Annotated[list[tuple[Whole, Key, Whole]], Meta(max_length=8)]  # worker, key, number of a push that is missing
Members = list[tuple[Whole, Whole, Text]]  # rank, epoch, token
Dtype = Literal["float16", "bfloat16", "float32", "float64"]
Shape = Annotated[list[Whole], Meta(max_length=32)]
Shapes = list[Shape]
Map = Plain
if TYPE_CHECKING:
    Data = list[Frame]
else:
    Data = Any  # on the wire: bytes of arrays, or how many frames with them follow; `messages.decode` sees to that


def name_of(dtype: np.dtype) -> Dtype:
    """What messages call a dtype that servers hold."""
    name: Dtype = arrays.DTYPES[dtype.newbyteorder("=")]
    return name


def check_key(key: Key) -> None:
    """Raises ArgumentError for a key that no message can name."""
    if isinstance(key, int):
        fits = -(1 << 63) <= key < 1 << 63
    else:
        fits = len(key) <= MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in key)  # no Unicode
    if not fits:
        raise ArgumentError(
            f"key {key!r:.80}: servers know keys by whole numbers of 64 bits, or by texts of at most {MAX_TEXT}"
            " characters of Unicode"
        )


def check_version(version: int, who: str) -> None:
    """Raises ProtocolError if a peer speaks another version than `who`, this process."""
    if version != VERSION:
        raise ProtocolError(
            f"protocol version {version} came, {who} speaks {VERSION}:"
            " install the same mxopt for all processes of a job"
        )


def buffer_of(frame: Frame) -> Any:
    """The memory of a frame."""
    return frame if type(frame) is bytes else getattr(frame, "buffer", frame)


def size_of(frame: Frame) -> int:
    """The bytes of a frame."""
    return len(buffer_of(frame))


def check_number(number: int, what: str) -> None:
    """Raises ProtocolError if members can't count on from a number, until LARGEST."""
    if number > FURTHEST:
        raise ProtocolError(f"{what} begins with number {number}, the last to begin with is {FURTHEST}")


def array_of(frame: Frame, dtype: np.dtype, count: int, name: object) -> np.ndarray:
    """The `count` elements that a frame holds, without a copy. Raises ProtocolError if its
    length is another."""
    buffer = frame if type(frame) is bytes else buffer_of(frame)
    if len(buffer) != count * dtype.itemsize:
        raise ProtocolError(
            f"key {name!r}: {counted(count, 'element')} of {dtype} in {count * dtype.itemsize} bytes are needed,"
            f" {len(buffer)} came"
        )
    if not count:
        return np.empty(0, dtype)
    found = np.frombuffer(buffer, dtype)
    return found if found.flags.aligned else found.copy()


def rows_of(frame: Frame, name: object) -> np.ndarray:
    """The int64 numbers of rows that a frame holds, copied: the sender can still change what it has
    lent, and these have to stay what they were found to be. Raises ProtocolError if its length
    is no multiple of theirs."""
    return array_of(frame, INT64, size_of(frame) // INT64.itemsize, name).copy()


def bytes_of(array: np.ndarray) -> memoryview:
    """A C-contiguous array's memory as a frame."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def plain_of(document: Frame) -> Plain:
    """The map that a document's bytes stand for, which are copied first: a sender can still change
    what it has lent. Raises ProtocolError if they are none of plain values."""
    try:
        found = plain.unpack(bytes(buffer_of(document)))
        plain.check(found)
    except ValueError as error:
        raise ProtocolError(f"these are no plain values: {error}") from None
    if type(found) is not dict:
        raise ProtocolError(f"a document holds a map, not {found!r:.80}")
    return found


def tune_memory() -> None:
    """Lets glibc keep what pieces are received into, instead of giving it back to the system after
    each, which costs 256 page faults a piece. Up to 128 MiB of freed memory stay with the
    process."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library
    mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 128 << 20)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
