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
from typing import Any

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
    """A state with one value for all elements along some axes: for each row, or for each column.

    `over` gives these axes, for a weight that has so many. Before anything else sees the state,
    `update(state, mean_square, **hypers)` renews it from the mean over them of the square of what
    `value(grad, **hypers)` returns.
    """

    state: str
    over: Callable[[int], tuple[int, ...]]
    value: Function
    update: Function


def each_row(axes: int) -> tuple[int, ...]:
    """All axes but the first."""
    return tuple(range(1, axes))


@dataclass(frozen=True)
class Rule:
    """An optimizer's mathematics.

    `states` are the arrays kept for each weight. `hypers` are the scalars: `COMMON` first, then the
    rule's own in the order in which its functions name them, `given` in all; then the derived ones.
    `lazy` says that rows without a gradient may be left alone, `lazy_storage` that those of a
    row-sparse weight always are.

    The states of `reductions` are renewed first. With a `direction` the stages see nothing of them,
    and as `grad` what `direction(grad, **states, **hypers)` returns; there is a hyper-parameter
    `size` then, which nobody gives: the number of elements. Without, there is one reduction, over
    each row: a kernel makes it together with the stage.

    `wide` says why the states need all bits of the arithmetic; without it they may be kept in
    bfloat16.
    """

    name: str
    states: tuple[str, ...]
    stages: tuple[Stage, ...]
    derivations: tuple[Derivation, ...] = ()
    lazy: bool = True
    lazy_storage: bool = False
    reductions: tuple[Reduction, ...] = ()
    direction: Function | None = None
    wide: str = ""
    by_row: Reduction | None = field(init=False)
    hypers: tuple[str, ...] = field(init=False)
    given: int = field(init=False)
    wanted: tuple[tuple[int, ...], ...] = field(init=False)  # for each derivation: which hypers it takes

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_row", self.reductions[0] if self.reductions and not self.direction else None)
        arrays = {"weight", "grad", "noise", *self.states} | ({"mean_square", "size"} if self.direction else set())
        derived = [name for derivation in self.derivations for name in derivation.names]
        given = dict.fromkeys(COMMON)
        first = [f for r in self.reductions for f in (r.value, r.update)] if self.direction else []
        for function in (*first, *filter(None, [self.direction])):
            given.update(dict.fromkeys(p for p in parameters(function) if p not in arrays))
        for stage, derivation in zip_longest(self.stages, self.derivations):
            given.update(dict.fromkeys(p for p in parameters(stage.function) if p not in arrays))
            if derivation is not None:
                given.update(
                    dict.fromkeys(p for p in parameters(derivation.function)[stage.norms :] if p not in arrays)
                )
        names = (*(name for name in given if name not in derived), *derived)
        object.__setattr__(self, "hypers", names)
        object.__setattr__(self, "given", len(names) - len(derived))
        wanted = (
            ()
            if self.direction
            else tuple(
                tuple(names.index(name) for name in parameters(derivation.function)[stage.norms :])
                for stage, derivation in zip(self.stages, self.derivations, strict=False)
            )
        )
        object.__setattr__(self, "wanted", wanted)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a module's rule is that rule."""
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
        """The shape of a weight's state: of length 1 along the axes that a reduction goes over."""
        over = [r.over(len(weight)) for r in self.reductions if r.state == name]
        reduced = {axis % len(weight) for axis in over[0]} if over else set()
        return tuple(1 if axis in reduced else n for axis, n in enumerate(weight))

    def derive(self, step: int, norms: Sequence[Any], hypers: Sequence[Any] | np.ndarray) -> tuple[Any, ...]:
        """The scalars that follow stage `step`; `hypers` are those known so far, in order. Numbers,
        or arrays with an element for each tensor."""
        values = [*norms, *(hypers[k] for k in self.wanted[step])]
        with np.errstate(all="ignore"):
            return as_tuple(self.derivations[step].function(*map(np.float64, values)))


def _of_module(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def as_tuple(results: Any) -> tuple[Any, ...]:
    """What a function of a rule returned; a single result counts as a tuple of one."""
    return results if isinstance(results, tuple) else (results,)


def rule(*states: str, lazy: bool = True, lazy_storage: bool = False, wide: str = "") -> Callable[[Function], Rule]:
    """Decorator: a function is a rule of one stage."""

    def make(function: Function) -> Rule:
        stages = (Stage(function, ("weight", *states)),)
        return Rule(function.__name__, states, stages, lazy=lazy, lazy_storage=lazy_storage, wide=wide)

    return make


@cache
def by_element(rule: Rule) -> Rule:
    """A rule that keeps one state for each row, for weights whose rows have one element, which is
    then the mean."""
    (step,), reduction = rule.stages, rule.by_row
    assert reduction is not None
    names = ("weight", "grad", *rule.states, *rule.hypers)

    def function(*given: Any) -> Any:
        values = dict(zip(names, given, strict=True))

        def call(f: Function) -> Any:
            return f(*(values[name] for name in parameters(f)))

        x = call(reduction.value)
        values["mean_square"] = x * x
        values[reduction.state] = state = call(reduction.update)
        results = call(step.function)
        return (*(results if isinstance(results, tuple) else (results,)), state)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return Rule(f"{rule.name}_by_element", rule.states, (Stage(function, (*step.writes, reduction.state)),))


@cache
def without_reductions(rule: Rule) -> Rule:
    """What is left of a rule with a direction once that is there."""
    reduced = {reduction.state for reduction in rule.reductions}
    states = tuple(name for name in rule.states if name not in reduced)
    return Rule(f"{rule.name}_directed", states, rule.stages, rule.derivations, lazy=False)


def stage(*writes: str, norms: int = 0) -> Callable[[Function], Stage]:
    """Decorator: a function is a stage that renews `writes` and returns `norms` values more."""
    return lambda function: Stage(function, writes, norms)


def derives(*names: str) -> Callable[[Function], Derivation]:
    """Decorator: a function makes the scalars `names` from norms."""
    return lambda function: Derivation(function, names)


def layerwise(
    name: str, states: tuple[str, ...], *steps: Stage | Derivation, lazy: bool = False, wide: str = ""
) -> Rule:
    """A rule of several stages with derivations in between. A lazy one has two, of which the first
    writes nothing and returns values of the weight alone and of the gradient alone."""
    stages = tuple(s for s in steps if isinstance(s, Stage))
    derivations = tuple(s for s in steps if isinstance(s, Derivation))
    return Rule(name, states, stages, derivations, lazy=lazy, wide=wide)
