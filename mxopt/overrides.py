"""Which methods of a class are somebody else's: what a subclass overrides is called, as in the real
systems."""

from __future__ import annotations

from collections.abc import Iterable


def overridden(klass: type, names: Iterable[str]) -> frozenset[str]:
    """Those of the methods `names` that `klass` has from outside mxopt: a subclass overrides them,
    or somebody has put another function in their place."""
    return frozenset(name for name in names if not _is_ours(klass, name))


def _is_ours(klass: type, name: str) -> bool:
    owner = next(k for k in klass.__mro__ if name in vars(k))
    homes = owner.__module__, getattr(vars(owner)[name], "__module__", owner.__module__)
    return all(home.partition(".")[0] == "mxopt" for home in homes)
