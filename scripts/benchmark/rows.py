"""The rows of the benchmark: every registered optimizer, what its rule touches, and the cases they
make with all kinds of work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mxopt
from benchmark.cases import KINDS, QUICK, SOME, Case, Optimizer, Shape
from mxopt.rules.rule import Rule, parameters

MOMENTUM = {"momentum": 0.9}
# Rows of an optimizer in other forms than that without options.
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "sgd": {"sgd": {}, "sgd-momentum": MOMENTUM},
    "nag": {"nag": {}, "nag-momentum": MOMENTUM},
    "signum": {"signsgd": {"momentum": 0.0}, "signum": {}},
    "dcasgd": {"dcasgd": {}, "dcasgd-momentum": MOMENTUM},
    "rmsprop": {"rmsprop": {}, "rmsprop-centered": {"centered": True}},
    "lbsgd": {"lbsgd": MOMENTUM, "lbsgd-lars": {**MOMENTUM, "warmup_strategy": "lars"}},
    "lars": {"lars": MOMENTUM},
    "ccsgd": {},  # another's name
}


def touched(rule: Rule) -> tuple[str, ...]:
    """The passes of an update by a rule. States of rows and columns are next to nothing."""
    reduced = (rule.reduction.row_state, rule.reduction.column_state) if rule.reduction else ()
    states = [name for name in rule.states if name not in reduced]
    letters = {"weight": "w", "grad": "g"} | dict(zip(states, "abc", strict=False))
    functions = [(parameters(stage.function), stage.writes) for stage in rule.stages]
    if rule.by_matrix is not None:
        functions.insert(0, (("grad",), ()))
    return tuple(
        " > ".join("".join(letter for name, letter in letters.items() if name in names) for names in both).strip()
        for both in functions
    )


def _optimizers() -> Iterator[tuple[str, Optimizer]]:
    for name, klass in mxopt.Optimizer.opt_registry.items():
        for row, options in FORMS.get(name, {name: {}}).items() if klass.__module__.startswith("mxopt.") else ():
            made: Any = mxopt.create(name, **options)
            rule = made.rule
            yield row, Optimizer(name, touched(rule), options, rule.lazy, rule.layerwise, rule.draws)


OPTIMIZERS = dict(_optimizers())


def has(kind: str, optimizer: Optimizer) -> bool:
    """Whether there is such a row."""
    return optimizer.lazy or not KINDS[kind].row_count


def cases(quick: bool, scale: float) -> list[Case]:
    """All rows with arrays, kind by kind. `scale` below 1 makes the large arrays smaller."""
    found = []
    for kind, work in KINDS.items():
        if not work.shapes:
            continue
        names = SOME.get(kind, tuple(OPTIMIZERS))
        for name in QUICK.get(kind, ()) if quick else names:
            if has(kind, OPTIMIZERS[name]):
                shapes = tuple(_scaled(shape, scale) for shape in work.shapes)
                row_count = max(1, math.ceil(work.row_count * scale)) if work.row_count else 0
                found.append(Case(kind, name, OPTIMIZERS[name], shapes, work.dtype, work.fresh, row_count))
    return found


def _scaled(shape: Shape, scale: float) -> Shape:
    return (max(1, math.ceil(shape[0] * scale)), *shape[1:]) if math.prod(shape) > 1000 else shape
