"""MXNet's binary format of arrays, found in `.params` files and in the pickles of saved states."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mxopt.document import write_file
from mxopt.errors import StatesError, counted
from mxopt.sparse import RowSparse
from mxopt.typing import Array

LIST = 0x112  # a file's first number
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # an array's first number; V3 allows NumPy's shapes, () too
DENSE, ROW_SPARSE, CSR = 0, 1, 2
DTYPES: dict[Any, Any] = {
    0: np.float32, 1: np.float64, 2: np.float16, 3: np.uint8, 4: np.int32, 5: np.int8, 6: np.int64, 7: np.bool_,
    8: np.int16, 9: np.uint16, 10: np.uint32, 11: np.uint64, 12: ml_dtypes.bfloat16,
}  # fmt: skip
FLAGS = {np.dtype(dtype): flag for flag, dtype in DTYPES.items()}
AXES = 32  # more than any array has


class _Reader:
    """Reads numbers and arrays from bytes, in order."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise StatesError(
                f"an array of MXNet's is cut off: at byte {self.at} it needs {counted(size, 'byte')},"
                f" {len(self.data) - self.at} are there"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, form: str) -> tuple[Array, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def shape(self, item: str = "q") -> tuple[int, ...]:
        (axes,) = self.numbers("i")
        if not 0 <= axes <= AXES:
            raise StatesError(f"an array of MXNet's with {axes} axes at byte {self.at}")
        return self.numbers(f"{axes}{item}")

    def values(self, flag: int, shape: tuple[int, ...]) -> np.ndarray:
        if flag not in DTYPES or min(shape, default=0) < 0:
            raise StatesError(f"an array of MXNet's with the dtype {flag} and the shape {shape} at byte {self.at}")
        dtype = np.dtype(DTYPES[flag])
        data = self.take(math.prod(shape) * dtype.itemsize)
        try:
            return np.frombuffer(data, dtype).reshape(shape).copy()
        except ValueError as error:  # an empty array whose other axes are too large
            raise StatesError(f"an array of MXNet's with the shape {shape} at byte {self.at}: {error}") from error

    def array(self) -> np.ndarray | RowSparse | None:
        """The next array; None if it has no value yet."""
        (magic,) = self.numbers("I")
        if magic not in (V1, V2, V3):  # before 2016 an array began with its number of axes
            raise StatesError(f"no array of MXNet 1.x begins with {magic:#x} (at byte {self.at - 4})")
        storage = DENSE if magic == V1 else self.numbers("i")[0]
        if storage not in (DENSE, ROW_SPARSE):
            kind = "a CSR array" if storage == CSR else f"an array of the storage type {storage}"
            raise StatesError(f"{kind} at byte {self.at} can't be read: only dense and row-sparse ones")
        stored = self.shape() if storage == ROW_SPARSE else None
        shape = self.shape()
        if not shape and magic != V3:
            return None
        _device, _number, flag = self.numbers("3i")
        if stored is None:
            return self.values(flag, shape)
        (index_flag,) = self.numbers("i")
        index_shape = self.shape()
        data = self.values(flag, stored)
        indices = self.values(index_flag, index_shape)
        array = RowSparse(data, indices.astype(np.int64), shape)
        if not array.is_sound():
            raise StatesError(f"the row-sparse array at byte {self.at}, {shape}, has rows {indices} of {stored}")
        return array


def read_array(data: bytes) -> np.ndarray | RowSparse | None:
    """The array that `NDArray.__getstate__` wrote. Raises StatesError for anything else."""
    reader = _Reader(data)
    array = reader.array()
    if reader.at != len(data):
        raise StatesError(f"an array of MXNet's has {counted(len(data) - reader.at, 'byte')} too many")
    return array


def read_mxnet_params(path: str | os.PathLike[str]) -> Any:
    """What `mxnet.nd.save`, `Module.save_params` or gluon's `save_parameters` wrote (a `.params`
    file).

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to array, or list of array
        NumPy arrays and `RowSparse`, by the names in the file (with "arg:" and "aux:" as `Module`
        has them); a list where they have no names, as `mxnet.nd.load`.

    Raises
    ------
    StatesError
        The file is damaged, is of another kind, or holds a CSR array.
    OSError
        It can't be read.
    """
    data = Path(path).read_bytes()
    try:
        reader = _Reader(data)
        magic, _, count = reader.numbers("3Q")
        if magic != LIST:
            raise StatesError(f"no file of MXNet's arrays begins with {magic:#x}")
        if count > len(data):
            raise StatesError(f"{counted(count, 'array')} can't be in {counted(len(data), 'byte')}")
        found = [reader.array() for _ in range(count)]
        (named,) = reader.numbers("Q")
        if named not in (0, count):
            raise StatesError(f"{counted(count, 'array')} with {counted(named, 'name')}")
        names = [bytes(reader.take(*reader.numbers("Q"))).decode() for _ in range(named)]
        if len(set(names)) < len(names):
            raise StatesError("a name stands twice")
        if reader.at != len(data):
            raise StatesError(f"there are {counted(len(data) - reader.at, 'byte')} too many")
    except (StatesError, UnicodeDecodeError) as error:
        raise StatesError(f"{path}: {error}") from error
    return dict(zip(names, found, strict=True)) if names else found


def write_mxnet_params(path: str | os.PathLike[str], arrays: Mapping[str, Array] | Sequence[Array]) -> None:
    """Writes arrays as `mxnet.nd.save` does, so that MXNet 1.x reads them.

    Parameters
    ----------
    path : path
        The file; what was there stays until the new one is whole.
    arrays : dict of str to array, or list of array
        NumPy arrays and `RowSparse`, of the dtypes that MXNet has.

    Raises
    ------
    StatesError
        MXNet has no such dtype, or an array has no axes, which MXNet 1.x doesn't allow.
    """
    named = isinstance(arrays, Mapping)
    names = [str(name).encode() for name in arrays] if named else []
    values = list(arrays.values() if named else arrays)  # type: ignore[union-attr]
    parts = [struct.pack("<3Q", LIST, 0, len(values)), *map(_written, values), struct.pack("<Q", len(names))]
    write_file(path, b"".join(parts + [struct.pack("<Q", len(name)) + name for name in names]))


def _written(array: Array) -> bytes:
    sparse = isinstance(array, RowSparse)
    data = np.ascontiguousarray(array.data if sparse else array)
    if data.dtype not in FLAGS or not array.shape:
        raise StatesError(f"MXNet has no array of {data.dtype} with the shape {array.shape}")

    def shape(of: tuple[int, ...]) -> bytes:
        return struct.pack(f"<i{len(of)}q", len(of), *of)

    head = struct.pack("<Ii", V2, ROW_SPARSE if sparse else DENSE) + (shape(data.shape) if sparse else b"")
    head += shape(array.shape) + struct.pack("<3i", 1, 0, FLAGS[data.dtype])  # on the CPU
    if not sparse:
        return head + data.tobytes()
    indices: np.ndarray = array.indices.astype(np.int64)
    return head + struct.pack("<i", FLAGS[indices.dtype]) + shape(indices.shape) + data.tobytes() + indices.tobytes()
