"""States in files that other programs read: safetensors and NumPy's `.npz`.

A state is a tree whose leaves are arrays and plain values. The file holds each array under its path
in the tree, such as "state/fc.weight/mean", and under "mxopt" the tree itself as JSON, with each
array replaced by its path. A `.npz` file has checksums; a safetensors file gets one, of tree and
arrays, under "mxopt.sha256".
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mxopt.device import to_host
from mxopt.document import load_document, write_file
from mxopt.engine import arrays
from mxopt.errors import StatesError
from mxopt.typing import Array, Document, Plain

TREE, CHECKSUM = "mxopt", "mxopt.sha256"
NEEDS = "this needs the package safetensors: pip install 'mxopt[safetensors]'; write_npz and read_npz do without"


def write_safetensors(path: str | os.PathLike[str], states: bytes | Document) -> None:
    """Writes states as a safetensors file. Needs the package `safetensors`.

    Parameters
    ----------
    path : path
        The file; what was there stays until the new one is whole.
    states : bytes or dict
        What `Updater.get_states`, or the `state_dict` of an optimizer of any family, returned; any
        tree of None, bool, int, float, str, bytes, lists, tuples, dicts, arrays and PyTorch's
        tensors on the CPU.

    Raises
    ------
    StatesError
        The tree holds a value of another type.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise ImportError(NEEDS) from error
    text, found = _taken_apart(states)
    write_file(path, save(found, {TREE: text, CHECKSUM: _checksum(text, found)}))


def read_safetensors(path: str | os.PathLike[str]) -> Plain:
    """The states that `write_safetensors` wrote. Any other safetensors file gives its arrays by
    name.

    Returns
    -------
    dict
        The tree, with arrays for tensors. `document.dump_document` turns an updater's into the
        bytes that `Updater.set_states` takes.

    Raises
    ------
    StatesError
        The file is damaged, or is not a safetensors file.
    OSError
        It can't be read.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(NEEDS) from error

    try:
        with safe_open(os.fspath(path), "numpy") as file:
            names = file.keys()
            found = {name: file.get_tensor(name) for name in names}
            metadata = file.metadata() or {}
    except (SafetensorError, AttributeError, TypeError) as error:  # the last two: NumPy lacks a dtype
        raise StatesError(f"{path}: {error}") from error
    text, checksum = metadata.get(TREE), metadata.get(CHECKSUM)
    if checksum is not None and checksum != _checksum(text or "", found):
        raise StatesError(f"{path}: the states are damaged: their checksum is wrong")
    return _put_together(path, text, found)


def write_npz(path: str | os.PathLike[str], states: bytes | Document) -> None:
    """Writes states as an `.npz` file, which `numpy.load` reads. A bfloat16 array is stored as
    uint16, bit for bit.

    Parameters and errors as in `write_safetensors`.
    """
    text, found = _taken_apart(states)
    file = io.BytesIO()
    content: Plain = {TREE: np.array(text)}
    content |= {name: a.view(np.uint16) if a.dtype == arrays.BFLOAT16 else a for name, a in found.items()}
    np.savez(file, **content)
    write_file(path, file.getvalue())


def read_npz(path: str | os.PathLike[str]) -> Plain:
    """The states that `write_npz` wrote. Any other `.npz` file gives its arrays by name. See
    `read_safetensors`."""
    data = Path(path).read_bytes()
    if data[:2] != b"PK":  # NumPy would take it for a pickle, and advise loading it
        raise StatesError(f"{path}: no .npz file of plain arrays: it begins with {data[:8]!r}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:  # NumPy reads, and checks, as much as an array says it has
            damaged = members.testzip()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:  # whatever NumPy, zipfile and zlib raise for a damaged file
        raise StatesError(f"{path}: no .npz file of plain arrays: {error}") from error
    if damaged is not None:
        raise StatesError(f"{path}: it is damaged: the checksum of {damaged} is wrong")
    text = found.pop(TREE, None)
    return _put_together(path, None if text is None else str(text), found)


def _checksum(text: str, found: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(found.items()):
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name} {array.dtype.name} {array.shape} ".encode() + little.tobytes())
    return digest.hexdigest()


# The tree as JSON. A type that JSON lacks is an object with one key, which names the type.


def _taken_apart(states: bytes | Document) -> tuple[str, dict[str, np.ndarray]]:
    found: dict[str, np.ndarray] = {}
    content = load_document(states) if isinstance(states, bytes) else dict(states)
    return json.dumps(_plain(content, "", found)), found


def _plain(x: Array, path: str, found: dict[str, np.ndarray]) -> Any:
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, bytes):
        return {"bytes": base64.b64encode(x).decode()}
    if isinstance(x, Mapping):
        return {"dict": [[_plain(k, path, found), _plain(v, f"{path}/{k}", found)] for k, v in x.items()]}
    if isinstance(x, list | tuple):
        items = [_plain(v, f"{path}/{k}", found) for k, v in enumerate(x)]
        return items if isinstance(x, list) else {"tuple": items}
    if isinstance(x, np.generic):
        return x.item()
    if arrays.is_tensor(x):
        x = arrays.as_array(x, path[1:])
    if not arrays.is_array(x):
        raise StatesError(f"{path[1:]} is a {type(x).__name__}: states hold arrays, numbers, texts, lists and dicts")
    name = path[1:]
    while name in found or name == TREE:  # the keys 1 and "1" give the same path
        name += "'"
    found[name] = np.ascontiguousarray(to_host(x)).reshape(x.shape)
    return {"array": [name, arrays.DTYPES.get(x.dtype, str(x.dtype))]}


def _put_together(path: str | os.PathLike[str], text: str | None, found: dict[str, np.ndarray]) -> Plain:
    if text is None:
        return dict(found)
    try:
        content = _tree(json.loads(text), found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StatesError(f"{path}: the tree of the states is damaged: {error!r}") from error
    if not isinstance(content, dict):
        raise StatesError(f"{path}: the states are no dict")
    return content


def _tree(x: object, found: dict[str, np.ndarray]) -> Any:
    if isinstance(x, list):
        return [_tree(v, found) for v in x]
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind == "array":
        name, dtype = value
        array = found[name]
        return array.view(arrays.BFLOAT16) if dtype == "bfloat16" and array.dtype == np.uint16 else array
    if kind == "bytes":
        return base64.b64decode(value, validate=True)
    if kind == "dict":
        return {_tree(k, found): _tree(v, found) for k, v in value}
    if kind != "tuple":
        raise ValueError(f"an unknown kind {kind!r}")
    return tuple(_tree(v, found) for v in value)
