"""The format of saved states.

Its specification is `docs/state-format.md`; nothing in it can be executed::

    8 bytes    b"mxopt\\r\\n\\x1a"
    4 bytes    version (2), little-endian, as all numbers
    8 bytes    H, the length of the header
    32 bytes   SHA-256 of everything after it and of H
    H bytes    header: one MessagePack map
    the rest   the arrays' bytes, in the order and of the sizes the header gives
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import math
import mmap
import os
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mxopt import plain
from mxopt.engine import arrays
from mxopt.errors import ArgumentTypeError, StatesError, counted
from mxopt.sparse import RowSparse, row_sparse_array
from mxopt.sparse.initial import Initial
from mxopt.typing import Array, Plain

try:
    import fcntl
except ImportError:  # no Unix
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".mxopt."  # how the names of files begin that are being written
ABANDONED_S = 60.0
MAGIC = b"mxopt\r\n\x1a"
OTHERS = {  # how other files begin, and what to do with them
    b"\x80": "; it looks like a pickle: mxopt.migrate.read_mxnet_states reads those that MXNet saved, as data",
    b"PK": "; it looks like a .npz file, for mxopt.migrate.read_npz, or one of torch.save, for torch.load",
}
VERSION = 2
PREFIX = struct.Struct("<8sIQ32s")
MAX_DEPTH = 64  # of lists, tuples and dicts within each other
ATOMS = bool | int | float | str | bytes
LONG = 1 << 30  # bytes from which bytes stand among the arrays: MessagePack has room for 4 GiB of them
DTYPES = {name: dtype.newbyteorder("<") for dtype, name in arrays.DTYPES.items()} | {
    "int64": np.dtype("<i8"), "uint8": np.dtype("u1"),
}  # fmt: skip
NAMES = {dtype.newbyteorder("="): name for name, dtype in DTYPES.items()}


def dump_document(content: Plain) -> bytes:
    """`content` (None, bool, int, float, str, bytes, lists, tuples, dicts and NumPy arrays, nested)
    as bytes."""
    header, found = parts_of(content)
    data = [a.astype(DTYPES[_name(a)], copy=False).tobytes() for a in found]
    return b"".join([PREFIX.pack(MAGIC, VERSION, len(header), _digest(header, data)), header, *data])


def write_document(path: str | os.PathLike[str], content: Plain, read: Callable[[np.ndarray], Iterable[Any]]) -> None:
    """Writes the document of `content` to a file, as `write_file` does, without making all of it
    first: `read` gives the bytes of one array after the other, each in pieces of any size, in this
    machine's byte order."""
    header, found = parts_of(content)

    def write(file: BinaryIO) -> None:
        digest = hashlib.sha256(struct.pack("<Q", len(header)))
        file.write(bytes(PREFIX.size))
        for part in itertools.chain([header], (piece for array in found for piece in read(array))):
            digest.update(part)
            file.write(part)
        file.seek(0)
        file.write(PREFIX.pack(MAGIC, VERSION, len(header), digest.digest()))

    write_file(path, write)


def parts_of(content: Plain) -> tuple[bytes, list[np.ndarray]]:
    """A document's header, and the arrays that follow it. Raises StatesError for what can't be
    saved."""
    found: list[np.ndarray] = []
    tree = _encode(content, found)
    try:
        header = plain.pack({"content": tree, "arrays": [[_name(a), list(a.shape)] for a in found]})
    except ValueError as error:  # a number of more than 64 bits, a text that is no Unicode
        raise StatesError(f"this can't be saved: {error}") from error
    return header, found


@dataclass(frozen=True)
class ArrayInfo:
    """An array in a document, without its values: the name of its dtype, its shape, its size in
    bytes, and how many `rows` a row-sparse one has."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    rows: int | None = None

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}" + ("" if self.rows is None else f", {counted(self.rows, 'row')} of it")


@dataclass(frozen=True)
class Described:
    """What `describe` found: the content with an `ArrayInfo` for each array, the file's size and
    format version."""

    content: Plain
    nbytes: int
    version: int


def load_document(document: bytes) -> Plain:
    """The content of a document. Raises StatesError if it is damaged, foreign or of another
    version, and ArgumentTypeError where it is no bytes."""
    try:
        data = memoryview(document).cast("B")
    except TypeError:
        raise ArgumentTypeError(
            f"saved states are bytes, got {document!r:.80}: of a file these are pathlib.Path(name).read_bytes()"
        ) from None
    return _read(data, copied)


def checksum_of(document: bytes) -> bytes:
    """The checksum at the beginning of a document: documents with equal checksums are equal."""
    return bytes(PREFIX.unpack_from(document)[-1])


def describe(path: str | os.PathLike[str]) -> Described:
    """What is in a file of states, and in states that are kept in it as bytes. Its checksum is
    verified, but no array is loaded.

    Raises StatesError if it is damaged, foreign or of another version, OSError where it can't be
    read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < PREFIX.size:  # and neither an empty file nor a pipe can be mapped
            data = file.read(PREFIX.size)
            if data.startswith(MAGIC):
                data += file.read()
            return Described(_opened(_read(memoryview(data), _info)), len(data), VERSION)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole, memoryview(whole) as view:
            return Described(_opened(_read(view, _info)), size, VERSION)


def _opened(tree: object) -> Any:
    """A tree whose bytes that are states are shown as what is in them."""
    if isinstance(tree, dict):
        return {key: _opened(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(_opened, tree))
    if isinstance(tree, bytes) and tree.startswith(MAGIC):
        with contextlib.suppress(StatesError):
            return _read(memoryview(tree), _info)
    return tree


def copied(data: memoryview, dtype: np.dtype, shape: list[int]) -> np.ndarray:
    """An array of its own."""
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _info(data: memoryview, dtype: np.dtype, shape: list[int]) -> ArrayInfo:
    return ArrayInfo(NAMES[dtype.newbyteorder("=")], tuple(shape), len(data))


def _read(view: memoryview, array: Callable[[memoryview, np.dtype, list[int]], Any]) -> Plain:
    """The content of a document, with what `array` makes of each array's bytes."""
    magic = bytes(view[: len(MAGIC)])
    hint = next((hint for start, hint in OTHERS.items() if magic.startswith(start)), "")
    if len(view) < PREFIX.size:
        what = counted(len(view), "byte")
        raise StatesError(f"these are no mxopt states: {what}, fewer than the {PREFIX.size} of the prefix{hint}")
    magic, version, length, digest = PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise StatesError(f"these are no mxopt states: they begin with {magic!r}{hint}")
    if version != VERSION:
        older = "; the mxopt that wrote them can go on from them, this one starts with new states" * (version < VERSION)
        raise StatesError(f"the states are of format version {version}, this mxopt reads version {VERSION}{older}")
    if length > len(view) - PREFIX.size:
        raise StatesError(
            f"the states are cut off: a header of {counted(length, 'byte')}, {len(view) - PREFIX.size} are there"
        )
    with view[PREFIX.size : PREFIX.size + length] as header, view[PREFIX.size + length :] as data:
        if _digest(header, [data]) != digest:
            raise StatesError("the states are damaged: their checksum is wrong")
        content = content_of(header, data, array)
    if not isinstance(content, dict):
        raise StatesError("the states' header holds no map")
    return content


def content_of(header: memoryview, data: memoryview, array: Callable[..., Array] = copied) -> Any:
    """The content of a document with this header and data; `array` makes an array of its bytes,
    dtype and shape. Raises StatesError if they are no document's."""
    try:
        decoded = plain.unpack(header)
        return _decode(decoded["content"], list(_arrays(decoded["arrays"], data, array)))
    except StatesError:
        raise
    except Exception as error:  # of many kinds; with a right checksum it is a writer's mistake
        raise StatesError(f"the states' header can't be read: {error}") from error


def _name(array: np.ndarray) -> str:
    return str(NAMES[array.dtype.newbyteorder("=")])


def _digest(header: Any, data: Iterable[Any]) -> bytes:
    digest = hashlib.sha256(struct.pack("<Q", len(header)))
    for part in (header, *data):
        digest.update(part)
    return digest.digest()


def _arrays(described: Iterable[Any], data: memoryview, array: Callable[..., Array]) -> Iterable[Array]:
    at = 0
    for name, shape in described:
        if name not in DTYPES or any(not isinstance(n, int) or n < 0 for n in shape):
            raise StatesError(f"the states hold an array of dtype {name!r} and shape {shape}")
        size = math.prod(shape) * DTYPES[name].itemsize
        if size > len(data) - at:
            raise StatesError(
                f"the states are cut off: an array needs {counted(size, 'byte')}, {len(data) - at} are there"
            )
        with data[at : at + size] as part:
            yield array(part, DTYPES[name], shape)
        at += size
    if at != len(data):
        raise StatesError(f"the states have {counted(len(data) - at, 'byte')} too many")


# A tree as MessagePack: plain values as they are, everything else a list that begins with its kind.


def _encode(x: Any, found: list[np.ndarray], depth: int = MAX_DEPTH) -> Any:
    if isinstance(x, bytes) and len(x) >= LONG:
        found.append(np.frombuffer(x, np.uint8))
        return ["bytes", len(found) - 1]
    if x is None or isinstance(x, ATOMS):
        return x
    if isinstance(x, dict | tuple | list):
        if not depth:
            raise StatesError(f"states are lists, tuples and dicts within each other up to {MAX_DEPTH} deep")
        if isinstance(x, dict):
            return ["dict", [[_encode(k, found, depth - 1), _encode(v, found, depth - 1)] for k, v in x.items()]]
        return ["tuple" if isinstance(x, tuple) else "list", [_encode(v, found, depth - 1) for v in x]]
    if isinstance(x, RowSparse):
        initial = [] if x.initial is None else [x.initial.plain()]
        return ["row_sparse", [_encode(part, found, 2) for part in (*x.as_they_lie(), x.shape, *initial)]]
    if arrays.is_cupy(x):
        x = x.get()
    if isinstance(x, np.generic) and x.dtype.kind in "biuf" and x.dtype.itemsize <= 8 and not isinstance(x, np.float16):
        return x.item()
    if type(x) in (np.ndarray, np.memmap) and x.dtype.newbyteorder("=") in NAMES and x.dtype != np.uint8:
        found.append(x)
        return ["array", len(found) - 1]
    raise StatesError(f"states hold arrays, numbers, texts, lists, tuples and dicts; got {type(x).__name__} {x!r:.80}")


def _decode(x: object, loaded: list[Array], depth: int = MAX_DEPTH) -> Any:
    if not isinstance(x, list):
        if x is not None and not isinstance(x, ATOMS):
            raise StatesError(f"a {type(x).__name__} where none belongs")
        return x
    kind, content = x
    if kind in ("array", "bytes"):
        if type(content) is not int or content < 0:
            raise StatesError(f"an array of number {content!r}")
        part = loaded[content]
        if (str(part.dtype) == "uint8") != (kind == "bytes"):
            raise StatesError(f"{part.dtype} where {kind} belong")
        return part.tobytes() if kind == "bytes" and isinstance(part, np.ndarray) else part
    if not depth:
        raise StatesError(f"lists, tuples and dicts within each other more than {MAX_DEPTH} deep")
    if kind == "row_sparse":
        data, indices, shape, *initial = (_decode(part, loaded, depth - 1) for part in content)
        if isinstance(data, ArrayInfo):
            return ArrayInfo(data.dtype, shape, data.nbytes + indices.nbytes, data.shape[0])
        rows = row_sparse_array((data, indices), shape)
        if initial:
            rows.put_in_slots(initial=Initial.of(*initial))
        return rows
    if kind == "dict":
        found = {_decode(k, loaded, depth - 1): _decode(v, loaded, depth - 1) for k, v in content}
        if len(found) < len(content):
            raise StatesError("a dict has a key twice")
        return found
    if kind not in ("tuple", "list"):
        raise StatesError(f"an unknown kind {kind!r}")
    return (tuple if kind == "tuple" else list)(_decode(v, loaded, depth - 1) for v in content)


def write_file(path: str | os.PathLike[str], document: bytes | Callable[[BinaryIO], None]) -> None:
    """Writes a file so that there is always either the old one or the new one: to a temporary name,
    synced, renamed. `document` is its content, or writes it.

    A file that is there keeps its mode, its owner where that may be set, and the links that lead to
    it. What is no regular file, as `/dev/stdout`, is written into. Raises OSError, which names the
    file, if it can't be written; the file is unchanged then.
    """
    if not callable(document) and not isinstance(document, bytes | bytearray | memoryview):
        raise ArgumentTypeError(f"a file is written from bytes, as dump_document makes them, got {document!r:.80}")
    try:
        _replace(path, document)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _replace(path: str | os.PathLike[str], document: bytes | Callable[[BinaryIO], None]) -> None:
    target = Path(os.path.realpath(path))  # the file itself: a link to it stays one
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:
            _write(file, document)
        return
    if old is not None and not os.access(target, os.W_OK):
        raise OSError(errno.EACCES, "the file is there, and may not be written")
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
    _sweep(target.parent)
    # A short name, whatever the length of the file's own.
    temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode & 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(handle)
            if old is not None and hasattr(os, "fchown"):
                with contextlib.suppress(PermissionError):
                    os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, mode)
            _write(file, document)
            file.flush()
            os.fsync(file.fileno())
            os.utime(temporary)  # which keeps it from being swept, however long that took
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _sweep(folder: Path) -> None:
    """Removes what killed writers have left in a folder: temporary files that are no longer locked,
    nor new."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY):
                continue
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED_S and _lock(file.fileno()):
                    os.unlink(entry.path)


def _lock(handle: int) -> bool:
    """Locks a file for as long as it is open. False if another process has, or the system knows
    no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(path: Path) -> None:
    """Returns when a folder's entries are on the disk, where the system can say that."""
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(file: BinaryIO, document: bytes | Callable[[BinaryIO], None]) -> None:
    if callable(document):
        document(file)
    else:
        file.write(document)
