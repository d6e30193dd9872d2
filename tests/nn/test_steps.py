"""What holds for a step of every optimizer of `mxopt.nn`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from table import NN, Grouped

import mxopt
from mxopt import nn
from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array

F32 = np.float32
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "custom_optimizer.py"
every = pytest.mark.parametrize("make", [row.over for row in NN], ids=map(str, NN))


def parameters(rng: np.random.Generator, *dtypes: Any) -> list[Parameter]:
    shapes = (4, 3), (5,), (2, 3, 2)
    return [
        Parameter(rng.standard_normal(shape).astype(dtype), f"p{k}")
        for k, (shape, dtype) in enumerate(zip(shapes, dtypes or (F32,) * 3, strict=True))
    ]


def gradients(rng: np.random.Generator, of: list[Parameter]) -> tuple[np.ndarray, ...]:
    made = tuple(rng.standard_normal(p.shape).astype(p.dtype) for p in of)
    for gradient in made:
        gradient.flags.writeable = False  # whoever changes one fails
    return made


def values(of: list[Parameter]) -> list[np.ndarray]:
    return [p.value.copy() for p in of]


@every
def test_resumed_run_gives_the_same_bits(make: Any, rng: np.random.Generator) -> None:
    straight = parameters(rng)
    optimizer = make(straight, weight_decay=0.01)
    first, second = ([gradients(rng, straight) for _ in range(4)] for _ in range(2))
    for step in first:
        optimizer(step)
    document = dump_document(optimizer.state_dict())
    resumed = [Parameter(v, p.name) for v, p in zip(values(straight), straight, strict=True)]
    for step in second:
        optimizer(step)
    other = make(resumed, weight_decay=0.01)
    other.load_state_dict(load_document(document))
    for step in second:
        other(step)
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


@every
def test_refused_gradient_changes_nothing_and_is_named(make: Any, rng: np.random.Generator) -> None:
    kept = parameters(rng)
    optimizer = make([{"params": kept[:1]}, {"params": kept[1:]}])
    good = gradients(rng, kept)
    optimizer(good)
    before, state = values(kept), dump_document(optimizer.state_dict())
    bad = {
        "shape": np.ones(7, F32),
        "dtype": np.ones((2, 3, 2), complex),
        "int64": np.ones((2, 3, 2), np.int64),
        "sparse": row_sparse_array((np.ones((1, 4), F32), [0]), shape=(3, 4)),
        "lends": "gradient",
        "memory": kept[2].value,
    }
    for gradient in bad.values():
        with pytest.raises((ValueError, TypeError), match=r"group 1, parameter 1 \(p2\)"):
            optimizer((*good[:2], gradient))
    for count in (good[:2], (*good, good[0])):
        with pytest.raises(ValueError, match="gradients for 3 parameters"):
            optimizer(count)
    with pytest.raises(TypeError, match="must be a tuple"):
        optimizer(good[0])
    assert dump_document(optimizer.state_dict()) == state
    for a, b in zip(before, kept, strict=True):
        np.testing.assert_array_equal(a, b.value)


@pytest.mark.filterwarnings("ignore:bfloat16 weights")
@every
def test_engines_agree_on_dtypes_layouts_and_missing_gradients(make: Any, rng: np.random.Generator) -> None:
    start = parameters(rng, np.float16, np.float64, ml_dtypes.bfloat16)
    steps = [gradients(rng, start) for _ in range(3)]
    steps[1] = (steps[1][0], None, steps[1][2].astype(F32))  # type: ignore[assignment]
    steps[2] = (np.asfortranarray(steps[2][0]), *steps[2][1:])

    def run() -> list[np.ndarray]:
        of = [Parameter(np.array(p.value, order="F"), p.name) for p in start]
        optimizer = make([{"params": of, "weight_decay": 0.01, "grad_centralization": True}])
        for step in steps:
            optimizer(step)
        return values(of)

    compiled = run()
    with mxopt.use_engine("numpy"):
        reference = run()
    for a, b, p in zip(compiled, reference, start, strict=True):
        assert a.dtype == p.dtype
        assert np.isfinite(a.astype(float)).all()
        np.testing.assert_array_equal(a, b)
    assert (compiled[1] != start[1].value).any()


@every
def test_row_sparse_gradient_is_the_dense_one_or_leaves_rows_alone(make: Any, rng: np.random.Generator) -> None:
    start = rng.standard_normal((6, 3)).astype(F32)
    sparse, dense = start.copy(), start.copy()
    one, other = make([sparse], weight_decay=0.0), make([dense], weight_decay=0.0)
    for rows in ([1, 4], [4], [0, 1]):
        gradient = row_sparse_array((rng.standard_normal((len(rows), 3)).astype(F32), rows), shape=(6, 3))
        one((gradient,))
        other((gradient.todense(),))
    if getattr(one, "lazy", False):
        np.testing.assert_array_equal(sparse[[2, 3, 5]], start[[2, 3, 5]])
        assert (sparse[[0, 1, 4]] != start[[0, 1, 4]]).all()
    else:
        np.testing.assert_array_equal(sparse, dense)


@every
def test_parameters_may_be_many(make: Any, rng: np.random.Generator) -> None:
    start = [rng.standard_normal(3).astype(F32) for _ in range(40)]
    together, apart = [w.copy() for w in start], [w.copy() for w in start]
    optimizer, each = make(together), [make([w]) for w in apart]
    for _ in range(2):
        step = tuple(rng.standard_normal(3).astype(F32) for _ in start)
        optimizer(step)
        for one, gradient in zip(each, step, strict=True):
            one((gradient,))
    np.testing.assert_array_equal(together, apart)


def test_states_of_another_optimizer_are_refused_and_say_what_differs(rng: np.random.Generator) -> None:
    of = parameters(rng)
    adam = nn.Adam(of)
    adam(gradients(rng, of))
    good = adam.state_dict()
    wrong = {
        "AdaMax": nn.AdaMax(of).state_dict(),
        "the rule 'amsgrad', not for 'adam'.* keeps no 'vhat'": nn.Adam(of, use_amsgrad=True).state_dict(),
        "'p2' is unknown there": nn.Adam(of[:2]).state_dict(),
        r"\(4, 3\)": {**good, "states": {**good["states"], "moment2": dict.fromkeys(("p0", "p1", "p2"), np.ones(2))}},
        "no state_dict": {"optimizer": "Adam"},
        "1 fixed learning rate here, not 2$": nn.Adam([{"params": of[:1], "lr": 0.1}, {"params": of[1:]}]).state_dict(),
    }
    before = dump_document(adam.state_dict())
    for message, document in wrong.items():
        with pytest.raises(StatesError, match=message):
            adam.load_state_dict(document)
    with pytest.raises(StatesError, match="eta"):
        nn.ASGD(of).load_state_dict({**nn.ASGD(of).state_dict(), "eta": [0.1]})
    assert dump_document(adam.state_dict()) == before


def test_changed_rates_are_saved_and_unnamed_parameters_go_by_position(rng: np.random.Generator) -> None:
    optimizer = nn.SGD([np.ones(2, F32), np.ones(2, F32)], learning_rate=0.1, momentum=0.9)
    optimizer.learning_rate.set_data(np.array(0.3))
    document = optimizer.state_dict()
    assert list(document["states"]["accum"]) == ["0", "1"]
    other = nn.SGD([np.ones(2, F32), np.ones(2, F32)], learning_rate=0.1, momentum=0.9)
    other.load_state_dict(document)
    assert other.get_lr() == 0.3


def test_states_of_a_custom_optimizer_are_its_clones() -> None:
    example = runpy.run_path(str(EXAMPLE))
    optimizer = example["Lion"]([Parameter(np.ones(2), "w")], 0.1)
    optimizer((np.ones(2),))
    document = optimizer.state_dict()
    assert document["states"]["moments"]["w"] == pytest.approx(0.01)


def test_both_custom_optimizers_of_the_example_learn_the_same() -> None:
    example = runpy.run_path(str(EXAMPLE))
    (weight, bias, accuracy), (weight2, bias2, _) = (example["train"](example[n]) for n in ("Lion", "CompiledLion"))
    np.testing.assert_allclose(weight, weight2, rtol=1e-12)
    np.testing.assert_allclose(bias, bias2, rtol=1e-12)
    assert accuracy > 0.9


def test_lars_takes_over_weight_decay_and_loss_scale_of_any_optimizer() -> None:
    example = runpy.run_path(str(EXAMPLE))
    weight, bias = Parameter(np.full(4, 3.0), "fc.weight"), Parameter(np.ones(4), "fc.bias")
    inner = example["Lion"]([weight, bias], 0.5, weight_decay=0.25)
    lars = nn.LARS(inner, coefficient=0.1, epsilon=0.0)
    lars((np.full(4, -0.5), np.full(4, 2.0)))
    trust = 0.1 * 6 / (1 + 0.25 * 6)
    assert (weight.value == 2.5).all()
    np.testing.assert_allclose(inner.moments[0].value, 0.01 * trust * (-0.5 + 0.25 * 3))
    np.testing.assert_allclose(inner.moments[1].value, 0.01 * 2)
    assert lars.get_weight_decay() == 0.25
    assert inner.get_weight_decay() == 0
    assert lars.global_step == inner.global_step == 1


@pytest.mark.parametrize("row", [row for row in NN if row.name != "nn.AdaFactor"], ids=str)
def test_a_rate_set_before_the_first_step_is_that_of_construction(row: Grouped, rng: np.random.Generator) -> None:
    first, later = parameters(rng), [Parameter(p.value.copy(), p.name) for p in parameters(rng)]
    for one, other in zip(first, later, strict=True):
        other.value[...] = one.value
    optimizers = row.over(first, learning_rate=0.25), row.over(later, learning_rate=0.5)
    for rate in getattr(optimizers[1], "opt", optimizers[1]).fixed_rates():
        rate.set_data(np.array(0.25))
    for _ in range(2):
        grads = gradients(rng, first)
        for optimizer in optimizers:
            optimizer(grads)
    for one, other in zip(first, later, strict=True):
        np.testing.assert_array_equal(one.value, other.value)


@pytest.mark.parametrize("broken", [lambda p: p.nosuch, 5], ids=["raises", "is no function"])
def test_lars_whose_filter_fails_leaves_the_other_optimizer_as_it_was(broken: Any) -> None:
    """It was left without its weight decay and loss scale."""
    inner = nn.SGD([np.ones(3, F32)], learning_rate=0.5, weight_decay=0.25, loss_scale=4.0)
    with pytest.raises((AttributeError, TypeError)):
        nn.LARS(inner, lars_filter=broken)
    assert (inner.get_weight_decay(), inner.loss_scale, inner.decay_flags) == (1.0, 4.0, (True,))


def test_lars_moves_weights_away_from_zero() -> None:
    weight = np.zeros(3, F32)
    nn.LARS(nn.SGD([weight], learning_rate=0.5))((np.ones(3, F32),))
    assert (weight == -0.5).all()


def test_ftrl_at_any_power_is_numpys_power(rng: np.random.Generator) -> None:
    from mxopt.rules.mindspore import power

    x = np.concatenate([[0.0], 10 ** rng.uniform(-20, 5, 200)])
    for exponent in (0.0, 0.25, 0.5, 0.7, 1.0, 1.9, 3.3, 7.5):
        with np.errstate(over="ignore", under="ignore"):  # in factors that aren't taken
            double, single = power(x, exponent), power(x.astype(F32), F32(exponent))
        np.testing.assert_allclose(double, x**exponent, rtol=1e-9)
        np.testing.assert_allclose(single, x**exponent, rtol=1e-5, atol=1e-30)
