"""Reads MXNet's saved states, which are pickles, without `pickle`: nothing in them is imported or
called.

`pickletools` splits a pickle into opcodes. This module interprets the few that MXNet's files use: a
class becomes a `Name`, an object a `Record`. It refuses any other opcode, and a file that asks for
more than it holds, so time and memory are proportional to the file. The result may still contain
one object in several places, or within itself: code that walks through it must allow for that.
"""

from __future__ import annotations

import pickletools
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mxopt.errors import StatesError
from mxopt.typing import Plain


@dataclass(frozen=True)
class Name:
    """A class or a function, by name only."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Record:
    """An object: its class, constructor arguments and attributes."""

    kind: Name
    arguments: tuple[Any, ...]
    attributes: Plain = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class _Mark:
    """Marks where the arguments of an opcode begin on the stack."""


MARK = _Mark()
KEYS = (str, bytes, int, float, bool, type(None))  # hashing a nested tuple could take for ever
TEXTS = {Name("builtins", "bytearray"), Name("__builtin__", "bytearray"), Name("_codecs", "encode")}


def read_pickle(data: bytes) -> Any:
    """What a pickle of protocol 2 to 5 holds: plain data, `Name`s and `Record`s.

    Raises StatesError if it is damaged, or holds anything that MXNet's files don't.
    """
    machine = _Machine()
    try:
        for opcode, argument, at in pickletools.genops(data):
            if opcode.name == "STOP":
                (result,) = machine.stack
                return result
            step = STEPS.get(opcode.name)
            if step is None:
                raise StatesError(f"a pickle with the opcode {opcode.name} at byte {at} is not read")
            step(machine, argument)
    except StatesError:
        raise
    except Exception as error:  # whatever a damaged pickle causes; nothing in it was executed
        raise StatesError(f"this is no whole pickle: {type(error).__name__}: {error}") from error
    raise StatesError("this is no whole pickle: it has no end")


class _Machine:
    """A pickle's stack and memory."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.encoded: dict[int, tuple[str, bytes]] = {}  # by id: a text that is used often is encoded once

    def marked(self) -> list[Any]:
        """Takes off the last mark and all above it, and returns what was above."""
        at = next((k for k in reversed(range(len(self.stack))) if self.stack[k] is MARK), None)
        if at is None:
            raise ValueError("there is no mark")
        above = self.stack[at + 1 :]
        del self.stack[at:]
        return above

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken


def _push(value: Callable[[Any], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(value(argument))


def _gathered(make: Callable[[list[Any]], Any], count: int | None = None) -> Callable[[_Machine, Any], None]:
    """Replaces the top `count` items by what `make` makes of them; without a count, all above the
    mark."""
    return lambda m, _: m.stack.append(make(m.marked() if count is None else m.pop(count)))


def shown(value: object) -> str:
    """A short form of anything in a pickle, for messages, in bounded time."""
    return reprlib.repr(value)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    wrong = [key for key in items[::2] if not isinstance(key, KEYS)]
    if wrong:
        raise ValueError(f"a key is a {type(wrong[0]).__name__}")
    return dict(zip(items[::2], items[1::2], strict=True))


def _remember(machine: _Machine, argument: int | None) -> None:
    machine.memory[len(machine.memory) if argument is None else argument] = machine.stack[-1]


def _recall(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.memory[argument])


def _extend(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if type(target) is not list:
        raise ValueError(f"items are added to a {type(target).__name__}")
    target.extend(items)


def _update(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    target = target.attributes if isinstance(target, Record) else target
    if type(target) is not dict:
        raise ValueError(f"keys are set in a {type(target).__name__}")
    target.update(_pairs(items))


def _global(machine: _Machine, argument: str | None) -> None:
    module, name = machine.pop(2) if argument is None else argument.split(" ", 1)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"a class is called {shown(name)} of {shown(module)}")
    machine.stack.append(Name(module, name))


def _make(machine: _Machine, _: object) -> None:
    """Replaces a class or function and its arguments by the result of the call: bytes for the
    wrappers of bytes, a record otherwise."""
    kind, arguments = machine.pop(2)
    if not isinstance(kind, Name) or not isinstance(arguments, tuple):
        raise ValueError(f"{shown(kind)} is called with {shown(arguments)}")
    machine.stack.append(_text(machine, kind, arguments) if kind in TEXTS else Record(kind, arguments))


def _text(machine: _Machine, kind: Name, arguments: tuple[Any, ...]) -> bytes:
    if not arguments:
        return b""
    first, *encoding = arguments
    if isinstance(first, str) and len(encoding) == 1 and encoding[0] in ("latin1", "latin-1"):
        if id(first) not in machine.encoded:  # by id, since two equal texts are two arrays
            machine.encoded[id(first)] = first, first.encode("latin-1")
        return machine.encoded[id(first)][1]
    if isinstance(first, bytes) and not encoding:
        return first
    raise StatesError(f"a pickle that calls {kind} with {shown(arguments)} is not read")


def _build(machine: _Machine, _: object) -> None:
    target, state = machine.pop(2)
    if not isinstance(target, Record) or not isinstance(state, dict):
        raise ValueError(f"a {type(target).__name__} is given the attributes {shown(state)}")
    target.attributes.update(state)
    machine.stack.append(target)


def _discard(machine: _Machine, _: object) -> None:
    machine.pop(1)


STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    "MARK": _push(lambda _: MARK),
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
         "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        _push(lambda argument: argument),
    ),
    "BYTEARRAY8": _push(bytes),
    "EMPTY_DICT": _push(lambda _: {}),
    "EMPTY_LIST": _push(lambda _: []),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "TUPLE": _gathered(tuple),
    "TUPLE1": _gathered(tuple, 1),
    "TUPLE2": _gathered(tuple, 2),
    "TUPLE3": _gathered(tuple, 3),
    "LIST": _gathered(list),
    "DICT": _gathered(_pairs),
    "APPEND": lambda machine, _: _extend(machine, machine.pop(1)),
    "APPENDS": lambda machine, _: _extend(machine, machine.marked()),
    "SETITEM": lambda machine, _: _update(machine, machine.pop(2)),
    "SETITEMS": lambda machine, _: _update(machine, machine.marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _recall),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _global),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _make),
    "BUILD": _build,
    "POP": _discard,
}  # fmt: skip
"""What each opcode does. Sets, persistent ids, extensions and out-of-band buffers are refused."""
