"""The operations that a rule may use, and how each printer writes them.

IEEE arithmetic fixes the result of each to the last bit, so all engines give the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mxopt.errors import RuleError


@dataclass(frozen=True)
class Operation:
    """`{0}`, `{1}`, `{2}` stand for the operands, `{real}` and `{boolean}` for LLVM's types. A text
    for LLVM without operands names an intrinsic. The result is a boolean, or has the operands'
    type."""

    llvm: str
    cuda: str
    boolean: bool = False


# By NumPy's names. Comparisons with NaN are false, except `not_equal`.
OPERATIONS = {
    "add": Operation("fadd {real} {0}, {1}", "{0} + {1}"),
    "subtract": Operation("fsub {real} {0}, {1}", "{0} - {1}"),
    "multiply": Operation("fmul {real} {0}, {1}", "{0} * {1}"),
    "divide": Operation("fdiv {real} {0}, {1}", "{0} / {1}"),
    "negative": Operation("fneg {real} {0}", "-({0})"),
    "sqrt": Operation("llvm.sqrt", "sqrt({0})"),
    "absolute": Operation("llvm.fabs", "fabs({0})"),
    "where": Operation("select {boolean} {0}, {real} {1}, {real} {2}", "{0} ? {1} : {2}"),
    "greater": Operation("fcmp ogt {real} {0}, {1}", "{0} > {1}", boolean=True),
    "greater_equal": Operation("fcmp oge {real} {0}, {1}", "{0} >= {1}", boolean=True),
    "less": Operation("fcmp olt {real} {0}, {1}", "{0} < {1}", boolean=True),
    "less_equal": Operation("fcmp ole {real} {0}, {1}", "{0} <= {1}", boolean=True),
    "equal": Operation("fcmp oeq {real} {0}, {1}", "{0} == {1}", boolean=True),
    "not_equal": Operation("fcmp une {real} {0}, {1}", "{0} != {1}", boolean=True),
    "logical_and": Operation("and {boolean} {0}, {1}", "{0} && {1}", boolean=True),
    "logical_or": Operation("or {boolean} {0}, {1}", "{0} || {1}", boolean=True),
}


# The same for unsigned numbers of 32 bits, modulo 2**32; `{real}` is their type.
WORDS = {
    "add": Operation("add {real} {0}, {1}", "{0} + {1}"),
    "multiply": Operation("mul {real} {0}, {1}", "{0} * {1}"),
    "bitwise_and": Operation("and {real} {0}, {1}", "{0} & {1}"),
    "bitwise_or": Operation("or {real} {0}, {1}", "{0} | {1}"),
    "bitwise_xor": Operation("xor {real} {0}, {1}", "{0} ^ {1}"),
    "left_shift": Operation("shl {real} {0}, {1}", "{0} << {1}"),
    "right_shift": Operation("lshr {real} {0}, {1}", "{0} >> {1}"),
    "where": OPERATIONS["where"],
    "greater": Operation("icmp ugt {real} {0}, {1}", "{0} > {1}", boolean=True),
    "less": Operation("icmp ult {real} {0}, {1}", "{0} < {1}", boolean=True),
}


# What to write for functions that people look for: exact ones, and those that others can do.
INSTEAD = {
    "sign": "mxopt.rules.common.sign(x, 1.0)",
    "clip": "mxopt.rules.common.clip(x, bound), or np.where",
    "maximum": "np.where(a > b, a, b)",
    "minimum": "np.where(a < b, a, b)",
    "fmax": "np.where(a > b, a, b)",
    "fmin": "np.where(a < b, a, b)",
    "square": "x * x",
    "power": "products, x * x, and np.sqrt",
    "float_power": "products, x * x, and np.sqrt",
    "reciprocal": "1 / x",
    "fabs": "np.abs(x)",
    "positive": "x itself",
    "logical_not": "the opposite comparison",
    "isnan": "x != x",
}
INSTEAD |= dict.fromkeys(
    ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh", "sinh", "cosh", "cbrt"),
    "a hyper-parameter that `scalars` computes, if it depends on the step; of an element no two engines agree on it",
)
INSTEAD |= dict.fromkeys(
    ("sum", "mean", "dot", "matmul", "norm", "max", "min", "any", "all"),
    "a class with an `update` of its own: a rule sees one element at a time",
)


def not_an_operation(what: str, name: str, known: Mapping[str, Operation] = OPERATIONS) -> RuleError:
    """The error for a rule that uses what isn't in the table of operations; says what to use
    instead."""
    instead = f": use {INSTEAD[name]}" if name in INSTEAD and known is OPERATIONS else ""
    return RuleError(
        f"a rule can't use {what}, which is not in the table of what every engine computes to the same bits{instead}."
        f" The table has {', '.join(sorted(known))}"
    )


def operation(name: str, words: bool = False) -> Operation:
    """The operation that NumPy calls `name`, on real numbers or on `words`. Raises RuleError if
    rules can't use it."""
    known = WORDS if words else OPERATIONS
    if name not in known:
        raise not_an_operation(f"np.{name}{' on words' * words}", name, known)
    return known[name]
