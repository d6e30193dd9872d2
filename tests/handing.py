"""Subclasses that override methods and change nothing: to see whether those are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def handing_on(base: type, methods: Iterable[str], calls: list[str]) -> type:
    """A subclass of `base`, by its name, whose `methods` only note the call in `calls` and hand it
    on."""

    def method(name: str) -> Callable[..., Any]:
        def handed_on(self: Any, *args: Any) -> Any:
            calls.append(name)
            return getattr(super(klass, self), name)(*args)

        return handed_on

    klass = type(base.__name__, (base,), {name: method(name) for name in methods})
    return klass
