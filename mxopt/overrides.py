"""Which methods of a class come from outside mxopt. Methods that a subclass overrides are called,
as in the real systems."""

from __future__ import annotations

from collections.abc import Iterable


def overridden(klass: type, names: Iterable[str]) -> frozenset[str]:
    """The methods among `names` that `klass` has from outside mxopt: a subclass overrides them, or
    someone has replaced them in the class."""
    return frozenset(name for name in names if not _is_ours(klass, name))


def _is_ours(klass: type, name: str) -> bool:
    owner = next(k for k in klass.__mro__ if name in vars(k))
    homes = owner.__module__, getattr(vars(owner)[name], "__module__", owner.__module__)
    return all(home.partition(".")[0] == "mxopt" for home in homes)
