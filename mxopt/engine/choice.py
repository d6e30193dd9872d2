"""Which engine runs updates of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from mxopt import settings
from mxopt.errors import UnknownNameError

ENGINES = {"llvm": "llvm", "numba": "llvm", "numpy": "numpy"}  # by `numba`, its first name, scripts may still call it


def _engine(name: str) -> str:
    if name not in ENGINES:
        raise UnknownNameError(f"there is no engine {name!r} for NumPy arrays; there are 'llvm' and 'numpy'")
    return ENGINES[name]


@cache
def _default() -> str:
    return _engine(settings.engine_name())


_current: ContextVar[str] = ContextVar("engine", default="")


def engine_in_use() -> str:
    """The name of the engine that runs updates of NumPy arrays here and now."""
    return _current.get() or _default()


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Updates of NumPy arrays inside the `with` block (in this thread) are run by engine `name`.

    Raises UnknownNameError for a name that is not 'llvm' or 'numpy'.
    """
    token = _current.set(_engine(name))
    try:
        yield
    finally:
        _current.reset(token)
