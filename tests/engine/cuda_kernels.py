"""Every kernel the CUDA engine can need, as CUDA C."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from table import PRECISIONS

import mxopt.rules
from mxopt.engine.cuda_source import COMMON, HALF, definition
from mxopt.engine.kernel import Kernel
from mxopt.rules.rule import Rule

NARROW = [("float32", False), ("bfloat16", False), ("bfloat16", True)]  # with states in bfloat16


def all_rules() -> list[Rule]:
    """The rules of all modules of `mxopt.rules`."""
    modules = [import_module(f"mxopt.rules.{m.name}") for m in pkgutil.iter_modules(mxopt.rules.__path__)]
    found = {rule.name: rule for module in modules for rule in vars(module).values() if isinstance(rule, Rule)}
    return [rule for rule in found.values() if rule.direction is None]


def all_kernels() -> list[Kernel]:
    """Every stage of every rule, in every precision, dense and by rows."""
    kernels = []
    for rule in all_rules():
        for step, stage in enumerate(rule.stages):
            forms = [False, True] if rule.lazy and stage.writes else [False]
            for dtype, master in PRECISIONS:
                state = "float32" if master else dtype
                dtypes = (dtype, dtype, *[state] * len(rule.states), *["float32"] * master)
                for rows in [True] if rule.by_row else forms:
                    kernels.append(Kernel(rule, step, dtypes, rows))
            for dtype, master in NARROW if stage.writes and not rule.wide else []:
                dtypes = (dtype, dtype, *["bfloat16"] * len(rule.states), *["float32"] * master)
                kernels += [Kernel(rule, step, dtypes, rows, stochastic=True) for rows in forms]
    return kernels


def sources(files: int) -> list[str]:
    """All kernels in that many files."""
    kernels = all_kernels()
    return [HALF + COMMON + "".join(map(definition, kernels[k::files])) for k in range(files)]
