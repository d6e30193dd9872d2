"""Every kernel the CUDA engine can need, as CUDA C."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from table import PRECISIONS

import mxopt.rules
from mxopt.engine.cuda_source import COMMON, HALF, definition
from mxopt.engine.kernel import REDUCES, Kernel
from mxopt.rules.rule import Rule, by_element

NARROW = [("float32", False), ("bfloat16", False), ("bfloat16", True)]  # with states in bfloat16


def all_rules() -> list[Rule]:
    """The rules of all modules of `mxopt.rules`."""
    modules = [import_module(f"mxopt.rules.{m.name}") for m in pkgutil.iter_modules(mxopt.rules.__path__)]
    found = {rule.name: rule for module in modules for rule in vars(module).values() if isinstance(rule, Rule)}
    return [*found.values(), *(by_element(rule) for rule in found.values() if rule.reduction)]


def of_dtypes(rule: Rule) -> list[tuple[str, ...]]:
    """The dtypes of its arrays in every precision."""
    states = [(dtype, "float32" if master else dtype, master) for dtype, master in PRECISIONS]
    return [(dtype, dtype, *[s] * len(rule.states), *["float32"] * master) for dtype, s, master in states]


def all_kernels() -> list[Kernel]:
    """Every stage of every rule, in every precision, dense and by rows."""
    kernels = []
    for rule in all_rules():
        if rule.by_matrix is not None:
            kernels += [Kernel(rule, None, dtypes, reduces=r) for dtypes in of_dtypes(rule) for r in REDUCES]
        for step, stage in enumerate(rule.stages):
            forms = [False, True] if rule.lazy and stage.writes else [False]
            for dtypes in of_dtypes(rule):
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
