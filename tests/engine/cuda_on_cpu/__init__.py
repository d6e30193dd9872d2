"""CuPy on the CPU, for tests without a GPU: as much of it as mxopt uses.

The kernels are those of the CUDA engine, the very text, compiled by g++ with `cuda_fp16.h` beside
this file. Arrays lie in the CPU's memory, but don't mix with NumPy's any more than CuPy's do.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

HERE = Path(__file__).parent


def compile_all(sources: Sequence[str], folder: Path) -> list[ctypes.CDLL]:
    """CUDA C sources as libraries; g++ compiles them at the same time."""
    libraries, running = [], []
    for source in sources:
        path = folder / hashlib.sha256(source.encode()).hexdigest()
        path.with_suffix(".cpp").write_text(source)
        command = ["g++", "-O1", "-ffp-contract=off", "-w", "-shared", "-fPIC", f"-I{HERE}", "-include", "cuda_fp16.h"]
        running.append(subprocess.Popen([*command, f"{path}.cpp", "-o", f"{path}.so"]))
        libraries.append(f"{path}.so")
    assert [process.wait() for process in running] == [0] * len(running)
    return [ctypes.CDLL(library) for library in libraries]


class Device:
    """The only device."""

    id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = None  # type: ignore[assignment]


class ndarray(NDArrayOperatorsMixin):  # noqa: N801
    """A CuPy array over a NumPy array."""

    device = Device()

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
            return getattr(self._host, name)
        raise AttributeError(name)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._host.ctypes.data)

    @property
    def flags(self) -> Any:
        return SimpleNamespace(c_contiguous=self._host.flags.c_contiguous)

    def get(self) -> np.ndarray:
        return self._host.copy()

    def copy(self) -> ndarray:
        return ndarray(self._host.copy())

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        found = self._host.astype(dtype, copy=copy)
        return self if found is self._host else ndarray(found)

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, item: Any) -> ndarray:
        return ndarray(np.asarray(self._host[_inside(item)]))

    def __setitem__(self, item: Any, value: Any) -> None:
        self._host[_inside(item)] = _inside(value)

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            (out,) = options["out"]
            options["out"] = (_inside(out),)
        result = getattr(ufunc, method)(*map(_inside, inputs), **options)
        return out if "out" in options else ndarray(np.asarray(result))


def _inside(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return x._host if isinstance(x, ndarray) else x


class CuPy:
    """What stands for the module `cupy`. `libraries` have kernels; others are compiled at their
    first call."""

    ndarray = ndarray
    cuda = SimpleNamespace(get_current_stream=nullcontext)

    def __init__(self, libraries: Sequence[ctypes.CDLL], folder: Path) -> None:
        self.libraries, self.folder = list(libraries), folder
        self.launches = 0

    def asarray(self, x: Any) -> Any:
        return x if isinstance(x, ndarray) else ndarray(np.array(x))

    def ascontiguousarray(self, x: Any, dtype: Any = None) -> Any:
        host = np.ascontiguousarray(x._host, dtype)
        return x if host is x._host else ndarray(host)

    def zeros(self, shape: Any, dtype: Any = float) -> Any:
        return ndarray(np.zeros(shape, dtype))

    def empty(self, shape: Any, dtype: Any = float) -> Any:
        return ndarray(np.full(shape, np.nan, dtype))

    def RawKernel(self, code: str, name: str, options: tuple[str, ...]) -> Any:  # noqa: N802
        assert options == ("-fmad=false",)

        def call(grid: tuple[int, int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            assert all(type(argument) is int for argument in arguments)  # which CuPy passes as 8 bytes
            library = next((library for library in self.libraries if hasattr(library, name)), None)
            if library is None:
                (library,) = compile_all([code], self.folder)
                self.libraries.append(library)
            self.launches += 1
            words = (ctypes.c_longlong * 8)(*arguments)
            library.launch(ctypes.cast(getattr(library, name), ctypes.c_void_p), *grid, *block, words)

        return call
