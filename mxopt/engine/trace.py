"""Calls a rule once with symbols and records what it does.

A rule is an ordinary NumPy function of a few arrays. Called with arrays, it computes; called with
`Symbol`s, it leaves a `Tape`: the list of its operations, which `kernel.py` prints as LLVM assembly
and `cuda_source.py` as CUDA C. Symbols use NumPy's own protocols (`__array_ufunc__`,
`__array_function__`), so a rule imports only NumPy, and its source isn't parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mxopt.engine.operations import not_an_operation, operation
from mxopt.errors import RuleError
from mxopt.rules.rule import Function, as_tuple, parameters
from mxopt.typing import Array

Operand = int | float  # the position of an earlier value on the tape, or a literal


@dataclass
class Tape:
    """A rule as a list of operations. The first values are the `arguments`, and each operation adds
    one; `outputs` are positions of values. All values are real numbers, or, with `words`, unsigned
    numbers of 32 bits.

    >>> print(trace(lambda weight, grad, lr: weight - lr * grad))
    v3 = multiply(lr, grad)
    v4 = subtract(weight, v3)
    return v4
    """

    arguments: tuple[str, ...]
    operations: list[tuple[str, tuple[Operand, ...]]] = field(default_factory=list)
    outputs: tuple[Operand, ...] = ()
    words: bool = False

    def record(self, name: str, inputs: tuple[Any, ...]) -> Symbol:
        operation(name, self.words)
        self.operations.append((name, tuple(self._operand(x) for x in inputs)))
        return Symbol(self, len(self.arguments) + len(self.operations) - 1)

    def _operand(self, value: Array) -> Operand:
        # A literal becomes a float so that it can't be mistaken for a position.
        return value.position if isinstance(value, Symbol) else float(value)

    def split(self, fixed: Collection[str], given: Collection[str]) -> tuple[Tape, Tape]:
        """What follows from the arguments `fixed`, and from those `given` besides, as a tape of its
        own; and what is left, which takes the results of the first as arguments, too.

        >>> tape = trace(lambda weight, lr, history: weight - lr / history)
        >>> first, rest = tape.split({"history"}, {"lr"})
        >>> print(first)
        v2 = divide(lr, history)
        return v2
        """
        count = len(self.arguments)
        known = {k: name for k, name in enumerate(self.arguments) if name in {*fixed, *given}}
        made: dict[int, str] = {}
        for k, (_, operands) in enumerate(self.operations, count):
            by_fixed = any(isinstance(x, int) and (x in made or known.get(x) in fixed) for x in operands)
            if by_fixed and all(isinstance(x, float) or x in known or x in made for x in operands):
                made[k] = str(k)  # which no parameter can be called
        left = [k for k in range(count, count + len(self.operations)) if k not in made]
        return (
            self._part(known, made, tuple(made)),
            self._part(dict(enumerate(self.arguments)) | made, left, self.outputs),
        )

    def _part(self, arguments: Mapping[int, str], operations: Collection[int], outputs: tuple[Operand, ...]) -> Tape:
        """The operations at these positions, which are given the values at those of `arguments`."""
        places = {old: new for new, old in enumerate([*arguments, *operations])}

        def moved(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
            return tuple(places[x] if isinstance(x, int) else x for x in operands)

        these = (self.operations[k - len(self.arguments)] for k in operations)
        done = [(name, moved(operands)) for name, operands in these]
        return Tape(tuple(arguments.values()), done, moved(outputs), self.words)

    def __str__(self) -> str:
        names = [*self.arguments, *(f"v{len(self.arguments) + k}" for k in range(len(self.operations)))]

        def listed(operands: tuple[Operand, ...]) -> str:
            return ", ".join(names[x] if isinstance(x, int) else repr(x) for x in operands)

        made = zip(names[len(self.arguments) :], self.operations, strict=True)
        lines = [f"{name} = {operation}({listed(operands)})" for name, (operation, operands) in made]
        return "\n".join([*lines, f"return {listed(self.outputs)}"])


class Symbol(NDArrayOperatorsMixin):
    """A value of a rule that is being traced."""

    def __init__(self, tape: Tape, position: int) -> None:
        self.tape = tape
        self.position = position

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: object) -> Symbol:
        if method != "__call__" or options:
            more = f".{method}" * (method != "__call__") + f" with {', '.join(sorted(options))}" * bool(options)
            raise not_an_operation(f"np.{ufunc.__name__}{more}", ufunc.__name__)
        return self.tape.record(ufunc.__name__, inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Symbol:
        if kwargs:
            raise not_an_operation(f"np.{function.__name__} with {', '.join(sorted(kwargs))}", function.__name__)
        return self.tape.record(function.__name__, args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # somebody asks what it is
            return super().__getattribute__(name)
        raise RuleError(
            f"a rule can't use .{name}: it sees one number at a time; NumPy's functions and operators remain"
        )

    def __float__(self) -> float:
        raise RuleError("a rule can't convert a value, which is float32, or float64 for such weights: use it as it is")

    def __bool__(self) -> bool:
        raise RuleError("a rule can't branch on a value: use np.where(condition, a, b)")


def trace(function: Function, words: bool = False) -> Tape:
    """The tape of `function`, whose parameters are real numbers, or `words`. Raises RuleError if it
    does something that kernels can't."""
    tape = Tape(parameters(function), words=words)
    results = function(*(Symbol(tape, i) for i in range(len(tape.arguments))))
    tape.outputs = tuple(tape._operand(x) for x in as_tuple(results))
    return tape
