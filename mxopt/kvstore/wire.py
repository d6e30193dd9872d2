"""How a message becomes frames and back: one MessagePack array, then raw array frames.

    frame 0    [kind, field, field, ...]
    frame 1..  the bytes of arrays

Decoding is total: `decode` returns a message whose fields have the types their class names, or raises
ProtocolError. What it
allocates is bounded by the frames that have really arrived.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import msgpack
import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ProtocolError

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform() -> Callable[[Any], Any]:
        return lambda function: function


VERSION = 1
PIECE = 1 << 20  # bytes of one piece of a large array
MAX_HEADER = 1 << 20
MAX_FRAME = 64 << 20
MAX_TEXT = 4096
DTYPES = {name: dtype for dtype, name in arrays.DTYPES.items()}

Frame = Any  # bytes, or anything with a buffer


@dataclass(slots=True)
class Message:
    """The base of all messages. `FRAMES` is how many frames follow the header."""

    KIND: ClassVar[int] = 0
    FRAMES: ClassVar[int] = 0
    CHECKS: ClassVar[tuple[tuple[str, Callable[[Any], bool]], ...]] = ()


KINDS: dict[int, type[Message]] = {}
M = TypeVar("M", bound=type)


# What the annotations of fields mean.


def _whole(x: Any) -> bool:
    return type(x) is int and 0 <= x < 1 << 63


def _key(x: Any) -> bool:
    return type(x) is int or (type(x) is str and len(x) <= MAX_TEXT)


CHECKS: dict[str, Callable[[Any], bool]] = {
    "Whole": _whole,
    "int": lambda x: type(x) is int,
    "bool": lambda x: type(x) is bool,
    "float": lambda x: type(x) is float and math.isfinite(x),
    "Text": lambda x: type(x) is str and len(x) <= MAX_TEXT,
    "Key": _key,
    "MaybeKey": lambda x: x is None or _key(x),
    "Keys": lambda x: type(x) is list and len(x) > 0 and all(map(_key, x)),
    "Dtype": lambda x: type(x) is str and x in DTYPES,
    "Shape": lambda x: type(x) is list and len(x) <= 32 and all(map(_whole, x)),
    "Texts": lambda x: type(x) is list and all(type(t) is str and len(t) <= MAX_TEXT for t in x),
    "Wholes": lambda x: type(x) is list and all(map(_whole, x)),
    "MaybeMap": lambda x: x is None or type(x) is dict,
    "Map": lambda x: type(x) is dict,
    "Plain": lambda x: True,
}
Whole = int
Key = int | str
MaybeKey = int | str | None
Keys = list[int | str]
Text = str
Texts = list[str]
Wholes = list[int]
Dtype = str
Shape = list[int]
Map = dict[str, Any]
MaybeMap = dict[str, Any] | None
Plain = Any


@dataclass_transform()
def message(kind: int, frames: int = 0) -> Callable[[M], M]:
    """Decorator: makes a class with annotated fields a message of this kind, followed by `frames` frames."""

    def make(klass: M) -> M:
        made: Any = dataclass(slots=True)(klass)
        made.KIND, made.FRAMES = kind, frames
        made.CHECKS = tuple((f.name, CHECKS[str(f.type)]) for f in fields(made) if f.name != "data")
        if kind in KINDS:
            raise TypeError(f"{klass.__name__} and {KINDS[kind].__name__} are both of kind {kind}")
        KINDS[kind] = made
        return made  # type: ignore[no-any-return]

    return make


def header(m: Message) -> bytes:
    """Frame 0 of a message."""
    packed: bytes = msgpack.packb([m.KIND, *(getattr(m, name) for name, _ in m.CHECKS)])
    return packed


def encode(m: Any) -> list[Frame]:
    """All frames of a message."""
    return [header(m), *m.data] if m.FRAMES else [header(m)]


def decode(frames: Sequence[Frame]) -> Any:
    """The message that `frames` are. Raises ProtocolError where they are none."""
    if not frames:
        raise ProtocolError("a message without a header")
    head = frames[0]
    if len(head) > MAX_HEADER:
        raise ProtocolError(f"a header of {len(head)} bytes; the limit is {MAX_HEADER}")
    try:
        content = msgpack.unpackb(head, strict_map_key=False)
    except Exception as error:  # msgpack raises many kinds
        raise ProtocolError(f"a header that is no MessagePack: {error}") from None
    if type(content) is not list or not content:
        raise ProtocolError("a header that is no list")
    kind = content[0]
    klass = KINDS.get(kind) if type(kind) is int else None
    if klass is None:
        raise ProtocolError(f"a message of unknown kind {kind!r:.40}")
    checks = klass.CHECKS
    if len(content) != len(checks) + 1:
        raise ProtocolError(f"{klass.__name__} has {len(checks)} fields, {len(content) - 1} came")
    if len(frames) != klass.FRAMES + 1:
        raise ProtocolError(f"{klass.__name__} has {klass.FRAMES} frames after the header, {len(frames) - 1} came")
    del content[0]
    make: Callable[..., Any] = klass
    for (name, check), value in zip(checks, content, strict=True):
        if not check(value):
            raise ProtocolError(f"{klass.__name__}: {name} can't be {value!r:.80}")
    if klass.FRAMES:
        return make(*content, list(frames[1:]))
    return make(*content)


def array_of(frame: Frame, dtype: np.dtype[Any], count: int, name: Any) -> np.ndarray:
    """The `count` elements that a frame holds, without a copy. Raises ProtocolError where its length is another."""
    buffer: Any = getattr(frame, "buffer", frame)
    if len(buffer) != count * dtype.itemsize:
        raise ProtocolError(
            f"key {name!r}: {count} elements of {dtype} are {count * dtype.itemsize} bytes, {len(buffer)} came"
        )
    if not count:
        return np.empty(0, dtype)
    found = np.frombuffer(buffer, dtype)
    return found if found.flags.aligned else found.copy()


def bytes_of(array: np.ndarray) -> memoryview:
    """A C-contiguous array's memory as a frame."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def tune_memory() -> None:
    """Lets glibc keep what pieces are received into, instead of giving it back to the system after each: 256 page
    faults a piece
    otherwise. Up to 128 MiB of freed memory stay with the process."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library
    mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 128 << 20)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
