"""Options: what an argument may be and what it is for, declared in its annotation::

    def __init__(self, beta: Annotated[float, Option("[0, 1)", "decay of the mean")] = 0.9): ...

From the declaration follow the check of the argument, its entry in the docstring, and the attribute
that a saved config reads. A class or function without declarations needs none of this.
"""

from __future__ import annotations

import math
import numbers
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from inspect import Parameter, cleandoc, formatannotation, signature, unwrap
from textwrap import wrap
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
else:
    from typing_extensions import Unpack as Unpack

__all__ = ["Exact", "Option"]  # what an optimizer of one's own declares its arguments by

SECTION = "Parameters\n----------"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """What an argument may be, as `Annotated[type, Option(...)]`.

    float and int allow any number but NaN, arrays without axes included; bool allows True, False,
    1, 0 and None; a Literal its texts, and `tuple[float, float]` a pair. Other types aren't
    checked. None is allowed if the type says so, in a pair too.

    Parameters
    ----------
    within : str
        An interval in mathematical notation, "[0, 1)" or "(0, inf)"; "" for any number. A pair may
        have two.
    says : str
        What the argument is for: a sentence without capital and full stop.
    kept : str
        The attribute that keeps it, if it has another name.
    ascending : bool
        Whether the second number of a pair must not be below the first.
    """

    within: str = ""
    says: str = ""
    kept: str = ""
    ascending: bool = False

    exact: ClassVar[bool] = False
    flags: ClassVar[bool] = True  # whether True and False count as numbers


class Exact(Option):
    """An option of exactly this type, as MindSpore checks it: an int isn't a float, and 1 isn't a
    bool."""

    exact: ClassVar[bool] = True


StepCount = Annotated[int, Exact("[1, inf)", "how many steps")]


def number(what: str, value: Any, nan: bool = False) -> float:
    """Any real number, arrays without axes included, as a float; NaN only if `nan`. Errors call it
    `what`.

    Raises ArgumentTypeError, which is a TypeError and a ValueError, or ArgumentError, a ValueError.
    """
    if isinstance(value, numbers.Real):
        found = float(value)
    elif getattr(value, "shape", None) is None:
        raise ArgumentTypeError(f"{what} must be a number, got {value!r}")
    elif tuple(value.shape):
        raise ArgumentTypeError(f"{what} must be a single number, got an array of shape {tuple(value.shape)}")
    else:
        try:
            found = float(value.item() if hasattr(value, "item") else np.asarray(value))
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"{what} must be a number, got {value!r}") from None
    if math.isnan(found) and not nan:
        raise ArgumentError(f"{what} is NaN")
    return found


def whole(what: str, value: Any) -> int:
    """A whole number above 0, NumPy's too. Raises ArgumentError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ArgumentError(f"{what} must be a whole number above 0, got {value!r}")
    return int(value)


def one_number(what: str, value: Any, nan: bool = False) -> float:
    """`number`, which also takes an array with axes and one element."""
    one = math.prod(getattr(value, "shape", (0,))) == 1 and hasattr(value, "reshape")
    return number(what, value.reshape(()) if one else value, nan)


def plain(value: Any) -> Any:
    """A real number as Python's own type, since arithmetic with NumPy's float32 and float16 has
    only their precision. Everything else as it is."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        return item if isinstance(item, bool | int) else float(item)
    return value


def flag(what: str, value: object) -> bool:
    """True or False. Raises ArgumentTypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentTypeError(f"{what} must be True or False, got {value!r}")
    return bool(value)


def within(what: str, value: Any, interval: str) -> None:
    """Raises ArgumentError if a number is outside of an interval such as "[0, 1)"; NaN always
    is."""
    low, high, closed_below, closed_above = _bounds(interval)
    if (low <= value if closed_below else low < value) and (value <= high if closed_above else value < high):
        return
    if low < value == math.inf:
        raise ArgumentError(f"{what} must be finite, got {value!r}")
    if high < math.inf or low == -math.inf:
        raise ArgumentError(f"{what} must be within {interval}, got {value!r}")
    if not closed_below:
        raise ArgumentError(f"{what} must be above {low:g}, got {value!r}")
    raise ArgumentError(f"{what} must {f'be {low:g} or more' if low else 'not be negative'}, got {value!r}")


@lru_cache(maxsize=256)
def _bounds(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high), interval[0] == "[", interval[-1] == "]"


class Declared:
    """The declaration of an argument, `Annotated[type, option]`."""

    def __init__(self, annotation: object) -> None:
        self.type: Any = get_args(annotation)[0]
        self.option: Option = get_args(annotation)[1]
        types = _members(self.type)
        self._optional = NoneType in types
        self._types = types - {NoneType}
        containers = {get_origin(t) for t in types} & {tuple, list}
        self._pairs = containers if tuple in containers else set()  # a list alone may be of any length
        self._lacking = [NoneType in _members(t) for kind in types if get_origin(kind) is tuple for t in get_args(kind)]
        self._choices = next((get_args(t) for t in types if get_origin(t) is Literal), ())
        self._intervals = re.findall(r"[\[(][^\])]*[\])]", self.option.within)

    def check(self, what: str, value: object) -> Any:
        """The value to keep. Raises what `number` raises; errors call it `what`."""
        if value is None and self._optional:
            return value
        if self._pairs:
            return self._pair(what, value)
        if self._choices and not (isinstance(value, str) and value in self._choices):
            choices = (*self._choices, None) if self._optional else self._choices
            raise ArgumentError(f"{what} must be {' or '.join(map(repr, choices))}, got {value!r}")
        return self._single(what, value, "".join(self._intervals))

    def kept(self, what: str, value: object) -> Any:
        """The value for a constructor: checked, and Python's own if it is a number."""
        self.check(what, value)
        return plain(value) if self._types and self._types <= {float, int, bool} else value

    def _single(self, what: str, value: object, interval: str) -> Any:
        if bool in self._types:
            return flag(what, value) if self.option.exact else self._truth(what, value)
        if self._types and (self._pairs or self._types <= {float, int}):
            if not self.option.flags and isinstance(value, bool | np.bool_):
                raise ArgumentTypeError(f"{what} must be a number, got {value!r}")
            found = self._exact(what, value) if self.option.exact else number(what, value)
            if interval:
                within(what, value, interval)
            return found
        return value

    def _pair(self, what: str, value: object) -> tuple[Any, Any]:
        kinds = tuple(self._pairs) if self.option.exact else (tuple, list, np.ndarray)
        if not isinstance(value, kinds) or not getattr(value, "ndim", 1) or len(value) != 2:
            raise ArgumentTypeError(f"{what} must be a pair of numbers, got {value!r}")
        intervals = self._intervals * (2 // len(self._intervals)) if self._intervals else ["", ""]
        found: list[Any] = [
            None if value[k] is None and self._lacking[k] else self._single(f"{what}[{k}]", value[k], intervals[k])
            for k in (0, 1)
        ]
        if self.option.ascending and found[0] > found[1]:
            raise ArgumentError(f"{what} must be a pair (a, b) with a <= b, got {value!r}")
        return found[0], found[1]

    def _exact(self, what: str, value: object) -> Any:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if self._types == {int}:
            if not whole:
                raise ArgumentTypeError(f"{what} must be an int, got {value!r}")
        elif not isinstance(value, float | np.floating) and not (int in self._types and isinstance(value, int)):
            raise ArgumentTypeError(f"{what} must be a float{' or an int' * (int in self._types)}, got {value!r}")
        if value != value:
            raise ArgumentError(f"{what} is NaN")
        return value

    @staticmethod
    def _truth(what: str, value: object) -> Any:
        if not (value is None or isinstance(value, numbers.Integral | np.bool_)):
            raise ArgumentTypeError(f"{what} must be True or False, got {value!r}")
        return value

    def __str__(self) -> str:
        """The type and the interval, for docstrings."""
        name = re.sub(r"\b(\w+\.)+", "", formatannotation(self.type))  # without modules
        return f"{name}, within {self.option.within}" if self.option.within else name


def _members(kind: object) -> set[Any]:
    return set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}


@lru_cache(maxsize=512)
def parameters(function: Callable[..., object]) -> tuple[Parameter, ...]:
    """The parameters of a function, with their annotations as objects if all can be looked up."""
    try:
        return tuple(signature(unwrap(function), eval_str=True).parameters.values())
    except NameError:  # a name that only type checkers import
        return tuple(signature(unwrap(function)).parameters.values())


def _has_option(annotation: object) -> bool:
    return get_origin(annotation) is Annotated and isinstance(get_args(annotation)[1], Option)


def without_option(parameter: Parameter) -> Parameter:
    """The parameter as shown in a signature."""
    kind = parameter.annotation
    return parameter.replace(annotation=get_args(kind)[0]) if _has_option(kind) else parameter


@lru_cache(maxsize=512)
def declared(function: Callable[..., object]) -> Mapping[str, Declared]:
    """A function's declarations, by parameter, those of `**base: Unpack[SomeTypedDict]`
    included."""
    fields = _fields(function)
    own = _declared({p.name: p.annotation for p in parameters(function)})
    return own | _declared_by(fields) if fields else own


@lru_cache(maxsize=512)
def _declared_by(fields: object) -> dict[str, Declared]:
    """The declarations of a TypedDict, which many constructors share."""
    return _declared(get_type_hints(fields, include_extras=True))


def _declared(annotations: Mapping[str, Any]) -> dict[str, Declared]:
    return {name: Declared(annotation) for name, annotation in annotations.items() if _has_option(annotation)}


def _fields(function: Callable[..., object]) -> Any:
    """The TypedDict of a function's `**base: Unpack[...]`, if it has one."""
    last = parameters(function)[-1:]
    return get_args(last[0].annotation)[0] if last and get_origin(last[0].annotation) is Unpack else None


def handed_on(function: Callable[..., object]) -> frozenset[str] | None:
    """The keywords that a function takes by `**base: Unpack[SomeTypedDict]`; None if it takes
    any."""
    fields = _fields(function)
    if fields is None:
        return None if any(p.kind is p.VAR_KEYWORD for p in parameters(function)) else frozenset()
    return frozenset(fields.__required_keys__ | fields.__optional_keys__)


def checked(function: F) -> F:
    """A decorator that checks arguments against their declarations, and passes numbers as Python's
    own."""
    names, checks = [p.name for p in parameters(function)], declared(function)
    if not checks:
        return function
    needed = [p.name for p in parameters(function) if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]

    @wraps(function)
    def call(*args: object, **kwargs: object) -> Any:
        owner = type(args[0]).__name__ if names[0] == "self" else function.__name__

        def kept(name: str, value: object) -> object:
            return checks[name].kept(f"{owner}: {name}", value) if name in checks else value

        if missing := [name for name in needed if name not in kwargs and name not in names[: len(args)]]:
            raise ArgumentTypeError(f"{owner} needs {' and '.join(missing)}")  # by its class' name, not a base's
        named = list(map(kept, names, args))
        return function(*named, *args[len(named) :], **{name: kept(name, value) for name, value in kwargs.items()})

    return call  # type: ignore[return-value]


@lru_cache(maxsize=512)
def _sentence(says: str) -> list[str]:
    return wrap(says[0].upper() + says[1:] + ".", 100, initial_indent="    ", subsequent_indent="    ")


def described(doc: str | None, function: Callable[..., object]) -> str | None:
    """A docstring with the list of the function's parameters, if they are declared and the
    docstring has no such list."""
    words, found = cleandoc(doc or ""), declared(function)
    if doc is None or not found or SECTION in words:
        return doc
    lines = [SECTION]
    for name, known in found.items():
        lines.append(f"{name} : {known}" if known.type is not Any else name)
        if says := known.option.says:
            lines += _sentence(says)
    if others := sorted((handed_on(function) or set()) - found.keys()):
        lines += [", ".join(others), "    See `Optimizer`."]
    at = re.search(r"^(>>>|[A-Z][a-z]+\n---)", words, re.MULTILINE)
    before, after = (words[: at.start()], words[at.start() :]) if at else (words, "")
    return "\n\n".join(filter(None, [before.strip(), "\n".join(lines), after.strip()])) + "\n"
