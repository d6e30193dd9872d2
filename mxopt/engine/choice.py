"""Which engine runs updates of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from mxopt import settings
from mxopt.errors import ArgumentError, UnknownNameError

EngineName = Literal["llvm", "numpy", "numba"]

_current: ContextVar[str]
# The name of the engine that runs updates of NumPy arrays here and now.
engine_in_use: Callable[[], str]
try:
    _default = settings.engine_name()
    _current = ContextVar("engine", default=_default)
    engine_in_use = _current.get
except ArgumentError:  # who asks is told; an import that failed would leave commands no words for it
    _current = ContextVar("engine")
    engine_in_use = settings.engine_name


def _engine(name: str) -> str:
    if not isinstance(name, str) or name not in settings.ENGINES:
        raise UnknownNameError(f"there is no engine {name!r} for NumPy arrays; there are 'llvm' and 'numpy'")
    return settings.ENGINES[name]


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
