"""Constructors that know what a wrong argument was meant to be."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from mxopt.errors import UnknownArgumentError, nearest


class NamedArguments:
    """A base of classes that suggest the argument that is like an unknown one.

    A constructor that takes any keywords is left alone: it may know what to do with them.
    """

    __signature__: ClassVar[inspect.Signature]

    if not TYPE_CHECKING:  # which reads the constructors

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            known = cls.__signature__.parameters
            unknown = [name for name in kwargs if name not in known]
            if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                raise UnknownArgumentError(
                    f"{cls.__name__} has no argument {unknown[0]!r}: {nearest(unknown[0], known)}"
                )
            return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _self, *named = inspect.signature(cls.__init__).parameters.values()
        cls.__signature__ = inspect.Signature(named)  # what help() shows, and not that of __new__
