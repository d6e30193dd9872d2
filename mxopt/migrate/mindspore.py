"""MindSpore's checkpoints: the values in a `.ckpt` file, and the states of `mxopt.nn`'s optimizers
among them."""

from __future__ import annotations

import binascii
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mxopt.document import write_file
from mxopt.errors import StatesError, counted
from mxopt.typing import Array

DTYPES: dict[Any, Any] = {
    "Int8": np.int8, "UInt8": np.uint8, "Int16": np.int16, "UInt16": np.uint16, "Int32": np.int32,
    "UInt32": np.uint32, "Int64": np.int64, "UInt64": np.uint64, "Float16": np.float16, "Float32": np.float32,
    "Float64": np.float64, "Bool": np.bool_, "BFloat16": ml_dtypes.bfloat16,
}  # fmt: skip
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
# A file is one Protocol Buffers message: Checkpoint.value = 1, Value.tag = 1 and .tensor = 2,
# TensorProto.dims = 1, .tensor_type = 2 and .tensor_content = 3. A checksum may follow it.
VARINT, BYTES = 0, 2
CHECKSUM = b"crc_num"
LARGEST = 2**31 - 1  # bytes: the limit of Protocol Buffers
AXES = 64  # more than any array has
TEXT = np.dtype("U")  # stored as type "str", shape (0,), in UTF-32


def read_mindspore_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The values in a `.ckpt` file of `mindspore.save_checkpoint`, by name.

    Parameters
    ----------
    path : path
        The file; not an encrypted one.

    Returns
    -------
    dict of str to array
        In the order of the file. A network's file has its parameters; an optimizer's has these and
        its states, which `load_mindspore_states` puts into an optimizer of `mxopt.nn`. A text, such
        as `append_dict` adds, is an array without axes: `value.item()`.

    Raises
    ------
    StatesError
        The file is damaged or encrypted, or holds anything but arrays of numbers and texts.
    OSError
        It can't be read.
    """
    data = Path(path).read_bytes()
    if not data:
        raise StatesError(f"{path}: the file is empty")
    body = data
    if data[-17:-10] == CHECKSUM:
        body = data[:-17]
        if int.from_bytes(data[-10:], "big") != binascii.crc32(body):
            raise StatesError(f"{path}: the checkpoint is damaged: its checksum is wrong")
    found: dict[str, tuple[np.dtype, tuple[int, ...], list[bytes]]] = {}
    try:
        for field, value in _fields(memoryview(body)):
            if field == 1:
                name, dtype, shape, content = _value(value)
                known = found.setdefault(name, (dtype, shape, []))
                if known[:2] != (dtype, shape):
                    raise StatesError(f"{name!r} stands twice, as {known[0]} {known[1]} and {dtype} {shape}")
                known[2].append(content)  # a large one comes in slices
        return {name: _array(name, *parts) for name, parts in found.items()}
    except (StatesError, UnicodeDecodeError) as error:
        raise StatesError(
            f"{path}: no checkpoint of MindSpore's that can be read, or an encrypted one: {error}"
        ) from error


def write_mindspore_checkpoint(path: str | os.PathLike[str], values: Mapping[str, Array]) -> None:
    """Writes arrays as a `.ckpt` file, which `mindspore.load_checkpoint` reads. It has the checksum
    that `crc_check=True` asks for.

    Parameters
    ----------
    path : path
        The file; what was there stays until the new one is whole.
    values : dict of str to array

    Raises
    ------
    StatesError
        MindSpore has no such dtype, or the file would exceed its limit of 2 GiB.
    """
    parts = []
    for name, value in values.items():
        array = np.asarray(value)
        text = array.dtype.kind == "U" and not array.ndim
        if array.dtype not in NAMES and not text:
            raise StatesError(f"MindSpore has no array of {array.dtype}: {name!r}")
        tensor = b"".join(_number(1, n) for n in ([0] if text else array.shape))
        content = array.item().encode("utf-32-le") if text else array.tobytes()
        tensor += _bytes(2, b"str" if text else NAMES[array.dtype].encode()) + _bytes(3, content)
        parts.append(_bytes(1, _bytes(1, name.encode()) + _bytes(2, tensor)))
    if sum(map(len, parts)) > LARGEST:
        raise StatesError(f"a checkpoint can't have {counted(sum(map(len, parts)), 'byte')}: 2 GiB are the most")
    body = b"".join(parts)
    write_file(path, body + CHECKSUM + binascii.crc32(body).to_bytes(10, "big"))


# Protocol Buffers.


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message: each one's number, and its value, an int or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif key & 7 == BYTES:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise StatesError(f"it is cut off: what needs {counted(size, 'byte')} has {len(data) - at}")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise StatesError(f"a field of the wire type {key & 7}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise StatesError("it is cut off within a number")
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise StatesError("a number of more than 64 bits")


def _value(data: object) -> tuple[str, np.dtype, tuple[int, ...], bytes]:
    """Name, dtype, shape and bytes of a `Checkpoint.Value`."""
    parts = dict(_fields(_message(data)))
    if 1 not in parts or 2 not in parts:
        raise StatesError(f"a value that is no tensor: its fields are {sorted(parts)}")
    dims, kind, content = [], "", b""
    for field, value in _fields(_message(parts[2])):
        if field == 1:
            dims.append(value if isinstance(value, int) else -1)
        elif field == 2:
            kind = bytes(_message(value)).decode()
        elif field == 3:
            content = bytes(_message(value))
    name = bytes(_message(parts[1])).decode()
    if kind not in DTYPES and kind != "str":
        raise StatesError(f"{name!r} is of the type {kind!r}, which is not read")
    if len(dims) > AXES:
        raise StatesError(f"{name!r} has {counted(len(dims), 'axis')}")
    if not all(0 <= n < LARGEST for n in dims):
        raise StatesError(f"{name!r} has the shape {dims}")
    return name, np.dtype(DTYPES[kind]) if kind in DTYPES else TEXT, tuple(dims), content


def _message(value: object) -> memoryview:
    if not isinstance(value, memoryview):
        raise StatesError(f"a number where a message belongs: {value}")
    return value


def _array(name: str, dtype: np.dtype, shape: tuple[int, ...], slices: list[bytes]) -> np.ndarray:
    content = b"".join(slices)
    if dtype == TEXT:
        return np.array(content.decode("utf-32-le"))
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise StatesError(f"{name!r} is {dtype} {shape}, and {counted(len(content), 'byte')}")
    try:
        return np.frombuffer(content, dtype).reshape(shape).copy()
    except ValueError as error:  # an empty array whose other axes are too large
        raise StatesError(f"{name!r} has the shape {shape}: {error}") from error


def _number(field: int, value: int) -> bytes:
    out = bytearray([field << 3 | VARINT])
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | BYTES]) + _number(0, len(value))[1:] + value
