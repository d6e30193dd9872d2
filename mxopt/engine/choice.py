"""Which engine runs updates of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from mxopt import settings
from mxopt.errors import UnknownNameError

EngineName = Literal["llvm", "numpy", "numba"]
ENGINES = {"llvm": "llvm", "numba": "llvm", "numpy": "numpy"}  # `numba` is a former name of `llvm`


def _engine(name: str, where: str = "") -> str:
    if not isinstance(name, str) or name not in ENGINES:
        raise UnknownNameError(f"{where}there is no engine {name!r} for NumPy arrays; there are 'llvm' and 'numpy'")
    return ENGINES[name]


_default = _engine(settings.engine_name(), "MXOPT_ENGINE: ")
_current: ContextVar[str] = ContextVar("engine", default=_default)

# The name of the engine that runs updates of NumPy arrays here and now.
engine_in_use: Callable[[], str] = _current.get


@contextmanager
def use_engine(name: EngineName | str) -> Iterator[None]:
    """Runs updates of NumPy arrays inside the `with` block, in this thread, with engine `name`,
    'llvm' or 'numpy'.

    Raises UnknownNameError for a name other than 'llvm' and 'numpy'.
    """
    token = _current.set(_engine(name))
    try:
        yield
    finally:
        _current.reset(token)
