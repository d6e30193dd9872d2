"""The arguments of constructors, by name: to suggest one for a misspelt one, and to save and show
objects."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mxopt.errors import MXOptError, UnknownArgumentError, nearest
from mxopt.options import Declared, checked, declared, described, handed_on, parameters, without_option
from mxopt.overrides import overridden


class NamedArguments:
    """A base of classes whose constructors suggest a known argument for an unknown one, and check
    the arguments that they declare (see `mxopt.options`).

    A constructor that takes any keywords may know what to do with them, so it isn't checked;
    `unnamed_arguments` are the keywords that it was given besides those of `arguments_of`.
    """

    unknown: ClassVar[type[MXOptError]] = UnknownArgumentError
    elsewhere: ClassVar[Mapping[str, str]] = {}  # what to take instead, for arguments of other systems'
    __signature__: ClassVar[inspect.Signature]
    unnamed_arguments: tuple[str, ...] = ()

    if not TYPE_CHECKING:  # which reads the constructors

        def __new__(cls, *args: object, **kwargs: object) -> Any:
            known = parameters_of(cls)
            unknown = tuple(name for name in kwargs if name not in known)
            if unknown and not cls.takes_more():
                instead = cls.elsewhere.get(unknown[0]) or nearest(unknown[0], known)
                raise cls.unknown(f"{cls.__name__} has no argument {unknown[0]!r}: {instead}")
            made = super().__new__(cls)
            if unknown:
                made.unnamed_arguments = unknown
            return made

    @classmethod
    def takes_more(cls) -> bool:
        """Whether the class may take keywords that it doesn't name, because a constructor from
        outside mxopt takes any."""
        any_keyword = (base for base in _constructors(cls) if handed_on(vars(base)["__init__"]) is None)
        return any(overridden(base, ["__init__"]) for base in any_keyword)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = described(vars(cls).get("__doc__"), cls.__init__)
        itself, *shown = _shown(cls)
        cls.__signature__ = inspect.Signature(shown)  # what help() shows, and not that of __new__
        if "__init__" in vars(cls) and declared(cls.__init__):
            made: Any = checked(cls.__init__)
            made.__signature__ = inspect.Signature([itself, *shown])
            setattr(cls, "__init__", made)  # noqa: B010 - type checkers see the constructor itself


def parameters_of(klass: type) -> dict[str, inspect.Parameter]:
    """A class's constructor arguments, including those that it hands on to its bases as
    **kwargs."""
    found: dict[str, inspect.Parameter] = {}
    allowed: frozenset[str] | None = None
    others: list[str] = []
    for base in _constructors(klass):
        for p in _signature(base):
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and (allowed is None or p.name in allowed):
                found.setdefault(p.name, p)
        more = handed_on(vars(base)["__init__"])
        allowed = more if allowed is None else allowed if more is None else allowed & more
        others += sorted(allowed or ())
    for name in others:  # keywords that a constructor takes, and no base names
        found.setdefault(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY))
    return found


def arguments_of(klass: type) -> tuple[str, ...]:
    """The names of `parameters_of`."""
    return tuple(parameters_of(klass))


def attribute_of(klass: type, argument: str) -> str:
    """The attribute that keeps a constructor's argument."""
    found = declared_of(klass).get(argument)
    return found.option.kept or argument if found else argument


def declared_of(klass: type) -> dict[str, Declared]:
    """The declarations of the class's constructor and those of its bases, by argument."""
    constructors = [vars(base)["__init__"] for base in klass.__mro__ if "__init__" in vars(base) and base is not object]
    return {name: found for known in map(declared, reversed(constructors)) for name, found in known.items()}


def check_kept(thing: object, others: Collection[str] = ()) -> None:
    """Raises ArgumentError, as the constructor does, if an attribute that keeps an argument has
    been set to what isn't allowed. The attributes `others` keep something else.

    It is for an update that has failed: where one works, a number out of its range may be intended.
    """
    for name, known in declared_of(type(thing)).items():
        attribute = attribute_of(type(thing), name)
        if hasattr(thing, attribute) and attribute not in others:
            known.check(f"{type(thing).__name__}: {attribute}", getattr(thing, attribute))


def call_of(thing: object) -> str:
    """A call that would make `thing`, for people to read, without arguments that have their
    defaults or that `thing` doesn't keep.

    >>> from mxopt.lr_scheduler import PolyScheduler
    >>> call_of(PolyScheduler(100, pwr=3))
    'PolyScheduler(max_update=100, pwr=3)'
    """
    missing = object()
    shown = []
    for name, parameter in parameters_of(type(thing)).items():
        value = getattr(thing, attribute_of(type(thing), name), getattr(thing, name, missing))
        if value is not missing and repr(value) != repr(parameter.default):
            shown.append(f"{name}={value!r}")
    return f"{type(thing).__name__}({', '.join(shown)})"


def _shown(klass: type) -> list[inspect.Parameter]:
    """The parameters of a constructor as shown in its signature: without options, and with the
    names of those that it hands on."""
    own = parameters(klass.__init__)  # type: ignore[misc]
    if not handed_on(klass.__init__):  # type: ignore[misc]
        return list(map(without_option, own))
    names = {p.name for p in own}
    more = [p.replace(kind=p.KEYWORD_ONLY) for name, p in parameters_of(klass).items() if name not in names]
    if any(p.default is p.empty for p in more):  # it hands none of these on
        return list(map(without_option, own))
    return list(map(without_option, [*own[:-1], *more]))


def _constructors(klass: type) -> list[type]:
    """The classes whose constructors are called, as far as arguments are handed on."""
    found = []
    for base in klass.__mro__:
        if "__init__" in vars(base) and base is not object:
            found.append(base)
            if not _takes_keywords(base):
                break
    return found


def _signature(klass: type) -> list[inspect.Parameter]:
    return list(parameters(vars(klass)["__init__"])[1:])


def _takes_keywords(klass: type) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _signature(klass))
