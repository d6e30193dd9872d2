"""What a rule is: elementwise mathematics, and names.

A rule's function is written with NumPy and is good for one element as for a whole array. Its
signature is its contract: `weight`, `grad` and the names of the states are arrays, `noise` is
standard normal noise that the engine draws (`noise.py`), every other parameter is a
hyper-parameter. It returns the new weight and the new states, in that order.

A rule that needs norms of the whole tensor (LARS, LAMB, LANS) is a chain: a *stage* that also
returns the values whose norms are wanted, a function that derives scalars from these norms, the
next stage. A derivation is written with NumPy too, and computes in double: for one tensor, or for
many at once.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np

Function = Callable[..., Any]

# The hyper-parameters every optimizer has. They stand first in every rule, used or not.
COMMON = ("lr", "wd", "rescale", "bound")


@cache
def parameters(function: Function) -> tuple[str, ...]:
    """The names of a function's parameters, in order."""
    return tuple(inspect.signature(function).parameters)


@dataclass(frozen=True)
class Stage:
    """One pass over the arrays.

    `function` returns the new values of `writes`, then `norms` values whose Euclidean norms over
    the whole tensor are taken.
    """

    function: Function
    writes: tuple[str, ...]
    norms: int = 0


@dataclass(frozen=True)
class Derivation:
    """Scalars made from norms: `function(*norms, **hypers)` returns the value, or one for each, of
    `names`."""

    function: Function
    names: tuple[str, ...]


@dataclass(frozen=True)
class Reduction:
    """States with one value for all elements of a row, or of a column.

    Before a stage sees them, `row(state, mean_square, **hypers)` renews the state of that name from
    the mean, over the row, of the square of what `value(grad, **hypers)` returns. Without `column`
    a row is all that has one first index. With it the last two axes are a matrix, whose columns
    have a state too. Stages may then ask for `row_factor` and `column_factor` in the states' place:
    what the functions of these names return of the state, and of `mean_row`, the mean of the
    matrix' row states. A weight of one axis is its own row state, and its `column_factor` is 1.
    """

    value: Function
    row: Function
    column: Function | None = None
    row_factor: Function | None = None
    column_factor: Function | None = None

    @property
    def row_state(self) -> str:
        return parameters(self.row)[0]

    @property
    def column_state(self) -> str:
        return "" if self.column is None else parameters(self.column)[0]

    @property
    def functions(self) -> tuple[Function, ...]:
        return (self.value, self.row, *filter(None, [self.column, self.row_factor, self.column_factor]))


@dataclass(frozen=True)
class Rule:
    """An optimizer's mathematics.

    `states` are the arrays kept for each weight. `hypers` are the scalars: `COMMON` first, then the
    rule's own in the order in which its functions name them, `given` in all; then the derived ones.
    `lazy` says that rows without a gradient may be left alone, `lazy_storage` that those of a
    row-sparse weight always are.

    With a `reduction` some states have a value for each row, or column, of the weight. A
    hyper-parameter called `size` is given by nobody: it is the number of elements.

    `wide` says why the states need all bits of the arithmetic; without it they may be kept in
    bfloat16.
    """

    name: str
    states: tuple[str, ...]
    stages: tuple[Stage, ...]
    derivations: tuple[Derivation, ...] = ()
    lazy: bool = True
    lazy_storage: bool = False
    reduction: Reduction | None = None
    wide: str = ""
    by_row: Reduction | None = field(init=False)  # a reduction of rows alone
    by_matrix: Reduction | None = field(init=False)  # one of rows and columns
    hypers: tuple[str, ...] = field(init=False)
    given: int = field(init=False)
    wanted: tuple[tuple[int, ...], ...] = field(init=False)  # for each derivation: which hypers it takes

    all_states: ClassVar[set[str]] = set()  # the names of all rules' states

    def __post_init__(self) -> None:
        Rule.all_states.update(self.states)
        columns = self.reduction is not None and self.reduction.column is not None
        object.__setattr__(self, "by_row", None if columns else self.reduction)
        object.__setattr__(self, "by_matrix", self.reduction if columns else None)
        arrays = {"weight", "grad", "noise", "row_factor", "column_factor", *self.states}
        derived = [name for derivation in self.derivations for name in derivation.names]
        given = dict.fromkeys(COMMON)
        if self.reduction is not None:
            for function in self.reduction.functions:
                given.update(
                    dict.fromkeys(p for p in parameters(function) if p not in arrays | {"mean_square", "mean_row"})
                )
        for stage, derivation in zip_longest(self.stages, self.derivations):
            given.update(dict.fromkeys(p for p in parameters(stage.function) if p not in arrays))
            if derivation is not None:
                given.update(dict.fromkeys(parameters(derivation.function)[stage.norms :]))
        made = [*derived, *(["size"] if "size" in given else [])]
        names = (*(name for name in given if name not in made), *made)
        object.__setattr__(self, "hypers", names)
        object.__setattr__(self, "given", len(names) - len(made))
        wanted = tuple(
            tuple(names.index(name) for name in parameters(derivation.function)[stage.norms :])
            for stage, derivation in zip(self.stages, self.derivations, strict=False)
        )
        object.__setattr__(self, "wanted", wanted)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a module's rule is the rule itself."""
        module = self.stages[0].function.__module__
        if getattr(sys.modules.get(module), self.name, None) is self:
            return _of_module, (module, self.name)
        return Rule, tuple(getattr(self, f.name) for f in fields(self) if f.init)

    @property
    def layerwise(self) -> bool:
        """Whether an update needs the whole tensor at once."""
        return bool(self.derivations)

    @property
    def draws(self) -> bool:
        """Whether an update takes noise."""
        return "noise" not in self.states and any("noise" in parameters(stage.function) for stage in self.stages)

    def state_shape(self, name: str, weight: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a weight's state: of length 1 along the axes over which it is a mean."""
        if self.reduction is None or name not in (self.reduction.row_state, self.reduction.column_state):
            return weight
        if self.by_row is not None:
            return weight[:1] + (1,) * len(weight[1:])
        if name == self.reduction.row_state:
            return (*weight[:-1], 1) if len(weight) > 1 else weight
        return (*weight[:-2], 1, weight[-1]) if len(weight) > 1 else (1,) * len(weight)

    def derive(self, step: int, norms: Sequence[Any], hypers: Sequence[Any] | np.ndarray) -> tuple[Any, ...]:
        """The scalars that follow stage `step`; `hypers` are those known so far, in their places.
        Numbers, or arrays with an element for each tensor."""
        values = [*norms, *(hypers[k] for k in self.wanted[step])]
        with np.errstate(all="ignore"):
            return as_tuple(self.derivations[step].function(*map(np.float64, values)))


def _of_module(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def as_tuple(results: Any) -> tuple[Any, ...]:
    """The results of a rule's function as a tuple, a single one too."""
    return results if isinstance(results, tuple) else (results,)


def rule(*states: str, lazy: bool = True, lazy_storage: bool = False, wide: str = "") -> Callable[[Function], Rule]:
    """A decorator that makes a rule of one stage from a function."""

    def make(function: Function) -> Rule:
        stages = (Stage(function, ("weight", *states)),)
        return Rule(function.__name__, states, stages, lazy=lazy, lazy_storage=lazy_storage, wide=wide)

    return make


@cache
def by_element(rule: Rule, columns: bool = False) -> Rule:
    """A rule with a reduction, for weights whose rows have one element, which is then the mean.
    With `columns` they are matrices of one element, whose columns have states too; else they have
    no columns. It takes the same hyper-parameters, used or not."""
    reduction = rule.reduction
    assert reduction is not None
    row, column, factor = reduction.row_state, reduction.column_state, reduction.row_factor
    states = tuple(name for name in rule.states if columns or name != column)
    given = ("weight", "grad", *states, *rule.hypers)
    renewed: dict[str, Any] = {row: reduction.row} | ({column: reduction.column} if columns else {})
    along: Any = reduction.column_factor if columns else None

    def of(step: Stage, first: bool) -> Stage:
        functions = [
            step.function,
            *filter(None, [factor, along]),
            *((reduction.value, *renewed.values()) if first else ()),
        ]
        taken = {name for f in functions for name in parameters(f)}.union(rule.hypers[: rule.given] if first else ())
        names = [name for name in given if name in taken]

        def function(*arguments: Any) -> Any:
            values = dict(zip(names, arguments, strict=True))

            def call(f: Function) -> Any:
                return f(*(values[name] for name in parameters(f)))

            if first:
                x = call(reduction.value)
                values["mean_square"] = x * x
                values |= {name: call(renew) for name, renew in renewed.items()}
            if factor is not None:
                values |= {"row_factor": call(factor), "column_factor": 1.0, "mean_row": values[row]}
            if along is not None:
                values["column_factor"] = call(along)
            results, kept = as_tuple(call(step.function)), [values[name] for name in renewed] if first else []
            return (*results[: len(step.writes)], *kept, *results[len(step.writes) :])

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return Stage(function, (*step.writes, *(renewed if first else ())), step.norms)

    stages = tuple(of(step, not k) for k, step in enumerate(rule.stages))
    name = f"{rule.name}_by_element{'_and_column' * columns}"
    return Rule(name, states, stages, rule.derivations, lazy=rule.by_row is not None)


def stage(*writes: str, norms: int = 0) -> Callable[[Function], Stage]:
    """A decorator that makes a stage, which renews `writes` and returns `norms` further values."""
    return lambda function: Stage(function, writes, norms)


def derives(*names: str) -> Callable[[Function], Derivation]:
    """A decorator: the function computes the scalars `names` from norms."""
    return lambda function: Derivation(function, names)


def layerwise(
    name: str,
    states: tuple[str, ...],
    *steps: Stage | Derivation,
    lazy: bool = False,
    reduction: Reduction | None = None,
    wide: str = "",
) -> Rule:
    """A rule of several stages with derivations in between. A lazy one has two, of which the first
    writes nothing and returns values of the weight alone and of the gradient alone."""
    stages = tuple(s for s in steps if isinstance(s, Stage))
    derivations = tuple(s for s in steps if isinstance(s, Derivation))
    return Rule(name, states, stages, derivations, lazy=lazy, reduction=reduction, wide=wide)
