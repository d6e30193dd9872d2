"""Runs a rule once on symbols and keeps what it did.

A rule is an ordinary NumPy function of a few arrays. Called with arrays, it computes; called with
`Symbol`s, it leaves a `Tape`: the straight list of its operations, which `kernel.py` turns into
LLVM IR and `cuda_source.py` into CUDA C. Symbols enter through NumPy's own protocols (`__array_ufunc__`,
`__array_function__`), so a rule needs no other import than NumPy and no parsing of its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mxopt.rules.rule import as_tuple

# NumPy's names of what a rule may do to an element; everything here is exact to the last bit in IEEE
# arithmetic, so that every engine can give the same result.
OPERATIONS = {
    "add", "subtract", "multiply", "divide", "negative", "sqrt", "absolute", "where", "logical_and", "logical_or",
    "greater", "greater_equal", "less", "less_equal", "equal", "not_equal",
}  # fmt: skip

Operand = int | float  # the position of an earlier value on the tape, or a literal


@dataclass
class Tape:
    """`arguments` values are given; each operation appends one more; `outputs` are positions."""

    arguments: int
    operations: list[tuple[str, tuple[Operand, ...]]] = field(default_factory=list)
    outputs: tuple[Operand, ...] = ()

    def record(self, name: str, inputs: tuple[Any, ...]) -> Symbol:
        if name not in OPERATIONS:
            raise TypeError(f"a rule can't use np.{name}; it may use {', '.join(sorted(OPERATIONS))}")
        self.operations.append((name, tuple(self._operand(x) for x in inputs)))
        return Symbol(self, self.arguments + len(self.operations) - 1)

    def _operand(self, value: Any) -> Operand:
        # A literal becomes a float so that it can't be mistaken for a position.
        return value.position if isinstance(value, Symbol) else float(value)


class Symbol(NDArrayOperatorsMixin):
    """Stands for one value of a rule while it is being traced."""

    def __init__(self, tape: Tape, position: int) -> None:
        self.tape, self.position = tape, position

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Symbol:
        if method != "__call__" or options:
            raise TypeError(f"a rule can't use np.{ufunc.__name__} with {method} and {sorted(options)}")
        return self.tape.record(ufunc.__name__, inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Symbol:
        if kwargs:
            raise TypeError(f"a rule can't use np.{function.__name__} with {sorted(kwargs)}")
        return self.tape.record(function.__name__, args)

    def __bool__(self) -> bool:
        raise TypeError("a rule can't branch on a value: use np.where(condition, a, b)")


def trace(function: Callable[..., Any], arguments: int) -> Tape:
    """The tape of `function` called with `arguments` symbols."""
    tape = Tape(arguments)
    results = function(*(Symbol(tape, i) for i in range(arguments)))
    tape.outputs = tuple(tape._operand(x) for x in as_tuple(results))
    return tape
