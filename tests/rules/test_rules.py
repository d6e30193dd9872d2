"""Rules: good for one element as for a whole array, and refused where an engine could not follow
them."""

from __future__ import annotations

import importlib
import math
import pkgutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import mxopt.rules
from mxopt.engine.trace import trace
from mxopt.errors import RuleError
from mxopt.rules.common import clip, larger, norm, sign
from mxopt.rules.rule import Rule, as_tuple, layerwise, parameters, rule, stage

MODULES = [importlib.import_module(f"mxopt.rules.{m.name}") for m in pkgutil.iter_modules(mxopt.rules.__path__)]
RULES = list({id(v): v for m in MODULES for v in vars(m).values() if isinstance(v, Rule)}.values())
numbers = st.floats(allow_subnormal=True, width=32)


@pytest.mark.parametrize("some", RULES, ids=lambda r: r.name)
def test_a_rule_does_to_an_array_what_it_does_to_each_element(some: Rule) -> None:
    rng = np.random.default_rng(0)
    arrays = {"weight", "grad", *some.states}
    for step in some.stages:
        names = parameters(step.function)
        values = {n: rng.standard_normal(5).astype(np.float32) if n in arrays else np.float32(0.25) for n in names}
        with np.errstate(all="ignore"):
            whole = as_tuple(step.function(**values))
            assert len(whole) == len(step.writes) + step.norms
            for i in range(5):
                one = as_tuple(step.function(**{n: v[i] if n in arrays else v for n, v in values.items()}))  # type: ignore[index]
                assert np.array_equal(
                    np.array(one), np.array([np.broadcast_to(w, 5)[i] for w in whole]), equal_nan=True
                )


@pytest.mark.parametrize("some", RULES, ids=lambda r: r.name)
def test_a_rule_is_a_straight_list_of_exact_operations(some: Rule) -> None:
    for step in some.stages:
        tape = trace(step.function)
        assert len(tape.outputs) == len(step.writes) + step.norms


@given(numbers, st.floats(0, width=32))
def test_clip(x: float, bound: float) -> None:
    clipped = float(clip(np.float64(x), np.float64(bound)))
    if math.isnan(x):
        assert math.isnan(clipped)
    else:
        assert clipped == min(max(x, -bound), bound)
    assert math.isnan(x) or float(clip(np.float64(x), math.inf)) == x


@given(numbers, st.floats(0, 2.0**100, width=32))
def test_sign(x: float, size: float) -> None:
    expected = size if x > 0 else -size if x < 0 else 0
    assert float(sign(np.float64(x), np.float64(size))) == expected


def test_the_larger_of_two_is_nan_where_one_is() -> None:
    assert larger(np.float32(2), np.float32(1)) == 2
    assert larger(np.float32(1), np.float32(2)) == 2
    assert np.isnan(larger(np.float32("nan"), np.float32(1)))
    assert np.isnan(larger(np.float32(1), np.float32("nan")))


@given(st.lists(st.floats(0, 1e308)), st.randoms())
def test_a_norm_does_not_depend_on_the_order(squares: list[float], random: Any) -> None:
    shuffled = random.sample(squares, len(squares))
    assert norm(shuffled) == norm(squares)


def test_norms_of_what_is_not_finite() -> None:
    assert norm([]) == 0
    assert norm([1.0, math.inf]) == math.inf
    assert norm([1e308] * 3) == math.inf
    assert math.isnan(norm([1.0, math.inf, math.nan]))


# What hides a NaN: rule, input. Everywhere else it reaches the weight.
HIDES = {
    ("signsgd", "grad"), ("signum", "grad"), ("signum", "velocity"),  # the sign of NaN is 0, as in MXNet
    ("rprop", "grad"), ("rprop", "previous"),  # as in PyTorch and MindSpore
    ("asgd", "average"), ("test", "copy"),  # which their weights don't read
}  # fmt: skip


@pytest.mark.parametrize("some", [r for r in RULES if len(r.stages) == 1], ids=lambda r: r.name)
def test_a_nan_in_any_input_reaches_the_weight(some: Rule) -> None:
    (step,) = some.stages
    names = parameters(step.function)
    for array in ("weight", "grad", *some.states):
        for hyper in (0.25, 0.75):  # on both sides of what is compared with them
            values = {n: np.float32(0.5 if n in ("weight", "grad", *some.states) else hyper) for n in names}
            if array not in values:
                continue
            values[array] = np.float32("nan")
            with np.errstate(all="ignore"):
                weight = as_tuple(step.function(**values))[0]
            assert np.isnan(weight) == ((some.name, array) not in HIDES), array


@pytest.mark.parametrize("name", ["proximal_adagrad", "ftrl", "ftrl_power", "rmsprop_l2_centered"])
def test_an_overflow_is_not_hidden(name: str) -> None:
    """Infinities that meet give NaN, which a comparison must not turn into a number."""
    (some,) = (r for r in RULES if r.name == name)
    (step,) = some.stages
    values = {n: np.float32(math.inf if n == "bound" else 0.5) for n in parameters(step.function)}
    values["mean" if "mean" in values else "grad"] = np.float32("inf")
    with np.errstate(all="ignore"):
        assert np.isnan(as_tuple(step.function(**values))[0])


def branching(weight: Any, grad: Any) -> Any:
    return weight if grad > 0 else grad


REFUSED = {
    "branch on a value": (branching, "np.where"),
    "functions that are not exact": (lambda weight, grad: np.exp(grad), "np.exp"),
    "powers": (lambda weight, grad: weight - grad**2, "np.power"),
    "reductions": (lambda weight, grad: weight - np.add.reduce(grad), "reduce"),
    "sums": (lambda weight, grad: weight - np.sum(grad), "np.sum"),
    "outputs": (lambda weight, grad: np.add(weight, grad, out=weight), "out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rules_cannot_use(name: str) -> None:
    function, match = REFUSED[name]
    with pytest.raises(RuleError, match=match):
        trace(function)


def test_the_hyper_parameters_are_the_common_ones_then_the_rules_own_then_the_derived() -> None:
    @rule("state")
    def simple(weight: Any, grad: Any, state: Any, own: Any, lr: Any, other: Any) -> Any:
        return weight, state

    assert simple.hypers == ("lr", "wd", "rescale", "bound", "own", "other")
    assert simple.given == 6
    assert not simple.layerwise

    @stage(norms=1)
    def first(weight: Any, before: Any) -> Any:
        return weight

    @mxopt.rules.rule.derives("rate")
    def rate(size: float, lr: float, trust: float) -> tuple[float]:
        return (lr * trust / size,)

    @stage("weight")
    def second(weight: Any, grad: Any, rate: Any, after: Any) -> Any:
        return weight - rate * grad * after

    chain = layerwise("chain", (), first, rate, second)
    assert chain.hypers == ("lr", "wd", "rescale", "bound", "before", "trust", "after", "rate")
    assert chain.given == 7
    assert chain.layerwise
    assert chain.derive(0, [4.0], [0.5, 0, 1, math.inf, 0, 2.0, 0]) == (0.25,)


def test_a_state_has_the_weights_shape_or_one_value_a_row() -> None:
    from mxopt.rules import adaptive

    assert adaptive.adagrad.state_shape("history", (4, 3, 2)) == (4, 3, 2)
    for weight, state in (((4, 3, 2), (4, 1, 1)), ((4, 3), (4, 1)), ((4,), (4,))):
        assert adaptive.group_adagrad.state_shape("history", weight) == state
