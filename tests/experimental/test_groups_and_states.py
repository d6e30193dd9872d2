"""Parameter groups, their options, and saved states of `experimental.optim`."""

# mypy: disable-error-code="call-arg"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optim_runs import STEPS, arrays_in, bits, every, grads_of, normal

import mxopt
from mxopt import nn
from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.parameter import Parameter


@every
def test_training_goes_on_from_a_saved_state_to_the_last_bit(make: Any) -> None:
    weights = normal(0)
    first = make(weights)
    for step in range(3):
        first(grads_of(step))
    copies = [w.copy() for w in weights]
    second = make(copies)
    second.load_state_dict(load_document(dump_document(first.state_dict())))
    for step in range(3, STEPS):
        first.param_groups[0]["lr"] = second.param_groups[0]["lr"] = 0.1 / step
        first(grads_of(step))
        second(grads_of(step))
    assert bits(weights) == bits(copies)
    assert arrays_in(first.state_dict()) == arrays_in(second.state_dict())


@every
def test_a_saved_state_is_a_copy(make: Any) -> None:
    optimizer = make(normal(0))
    optimizer(grads_of(0))
    saved = optimizer.state_dict()
    before = arrays_in(saved)
    optimizer.load_state_dict(saved)
    optimizer(grads_of(1))
    assert arrays_in(saved) == before


@every
def test_a_group_added_in_mid_run_begins_at_step_one(make: Any) -> None:
    weights, alone = normal(0), normal(0)
    optimizer, first, second = make(weights[:2]), make(alone[:2]), make(alone[2:])
    for step in range(STEPS):
        if step == 3:
            optimizer.add_param_group({"params": weights[2:]})
        grads = grads_of(step)
        optimizer(grads if step >= 3 else grads[:2])
        first(grads[:2])
        if step >= 3:
            second(grads[2:])
    assert bits(weights) == bits(alone)
    assert [id(p) for p in optimizer.parameters] == [id(w) for w in weights]


@pytest.mark.parametrize("rate", [0.25, 1, np.float32(0.5), np.array(0.125), np.float64(0.75)])
def test_every_number_can_be_assigned_as_a_rate(rate: Any) -> None:
    weight = np.zeros(1, np.float32)
    optimizer = optim.SGD([weight], lr=0.1)
    assert optimizer.param_groups[0]["lr"] == 0.1
    optimizer.param_groups[0]["lr"] = rate
    optimizer((np.ones(1, np.float32),))
    assert weight[0] == -float(rate)
    assert type(optimizer.param_groups[0]["lr"]) is float


@pytest.mark.parametrize(
    ("option", "value"),
    [("lr", -1.0), ("lr", "0.1"), ("lr", float("nan")), ("betas", (1.0, 0.9)), ("amsgrad", 1), ("params", [])],
)
def test_a_bad_option_is_refused_when_it_is_assigned(option: str, value: Any) -> None:
    optimizer = optim.Adam([{"params": normal(0)}])
    (group,) = optimizer.param_groups
    before = dict(group)
    for assign in (
        lambda: group.__setitem__(option, value),
        lambda: group.update({option: value}),
        lambda: group.__ior__({option: value}),
    ):
        with pytest.raises(ValueError, match="group"):
            assign()
    assert all(group[key] is before[key] for key in before)


def test_options_may_change_the_rule_in_mid_run() -> None:
    weights = normal(0)
    optimizer = optim.SGD(weights, 0.1)
    for step in range(3):
        optimizer(grads_of(step))
    optimizer.param_groups[0].update(momentum=0.9, nesterov=True)
    before = bits(weights)
    optimizer(grads_of(3))
    assert bits(weights) != before
    assert "velocity" in optimizer.state_dict()["state"]["0"]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([{"params": [np.zeros(1)], "weigth_decay": 0.1}], "weigth_decay.*did you mean 'weight_decay'"),
        ([{"params": [np.zeros(1)], "learning_rate": 0.1}], "no option 'learning_rate': did you mean 'lr'"),
        ([{"params": [np.zeros(1)], "wd": 0.1}], "no option 'wd': did you mean 'weight_decay'"),
        ([{"params": [np.zeros(1)], "LR": 0.1}], "no option 'LR': did you mean 'lr'"),
        ([{"lr": 0.1}], "group 0 has no 'params'"),
        ([{"params": [np.zeros(1)]}, np.zeros(1)], "mixes"),
        ([np.zeros(1, np.int32)], "group 0, parameter '0'.*int32"),
        ([{"params": [Parameter(np.zeros(1), "w")]}, {"params": [Parameter(np.zeros(1), "w")]}], "called 'w'"),
    ],
)
def test_bad_groups_are_named(groups: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        optim.Adam(groups)


@pytest.mark.parametrize(("key", "value"), [("state_dtype", "bfloat16"), ("seed", 3), ("multi_precision", True)])
def test_what_all_groups_share_is_refused_in_one(key: str, value: Any) -> None:
    """A group kept it as if it were the caller's, and nothing followed from it."""
    with pytest.raises(KeyError, match=f"Adam, group 0 can't have a {key} of its own"):
        optim.Adam([{"params": [np.zeros(1)], key: value}])
    optimizer = optim.Adam([np.zeros(1)])
    with pytest.raises(KeyError, match=f"Adam, group 0 can't have a {key} of its own"):
        optimizer.param_groups[0][key] = value
    assert key not in optimizer.param_groups[0]


@pytest.mark.parametrize("key", ["learning_rate", "wd", "lR"])
def test_an_option_by_a_wrong_name_is_refused_later_too_and_where_there_is_none_like_it(key: str) -> None:
    optimizer = optim.Rprop([np.zeros(1)])
    before = dict(optimizer.param_groups[0])
    with pytest.raises(KeyError, match=f"Rprop, group 0 has no option '{key}'"):
        optimizer.param_groups[0][key] = 0.1
    with pytest.raises(KeyError, match=f"Rprop, group 1 has no option '{key}'"):
        optimizer.add_param_group({"params": [np.zeros(2)], key: 0.1})
    assert [dict(group) for group in optimizer.param_groups] == [before]
    optimizer.param_groups[0]["mine"] = 0.1


def test_groups_may_be_what_mindspore_and_pytorch_take() -> None:
    def arrays() -> list[Any]:
        return [np.ones(2, np.float32)]

    grads = (np.full(2, 0.5, np.float32), np.full(2, 0.5, np.float32))
    plain, other = optim.Rprop(arrays(), 0.1), optim.Rprop([{"params": arrays(), "etas": (0.5, 1.0)}], 0.1)
    for optimizer in (plain, other):
        optimizer(grads[:1])
        optimizer(grads[:1])
    np.testing.assert_allclose([plain.parameters[0], other.parameters[0]], [[0.78, 0.78], [0.8, 0.8]], rtol=1e-6)

    optimizer = optim.Adamax([{"params": arrays(), "alpha": "mine", "lambd": 0.02}], lr=0.1)  # type: ignore[assignment]
    assert optimizer.param_groups[0]["alpha"] == "mine"  # another optimizer's option is the user's own here

    groups = [{"params": arrays()}, {"params": arrays(), "momentum": 0.0}]
    nesterov = optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    alone = optim.SGD(arrays(), lr=0.1)
    for _ in range(3):
        nesterov(grads)
        alone(grads[:1])
    np.testing.assert_array_equal(nesterov.parameters[1], alone.parameters[0])
    assert nesterov.parameters[0][0] < alone.parameters[0][0]


@pytest.mark.parametrize("option", ["lr", "weight_decay"])
def test_an_infinite_option_is_refused_in_the_constructor_in_a_group_and_later(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be finite, got inf"):
        optim.Adam([np.ones(2)], **{option: np.inf})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"group 1: {option} must be finite"):
        optim.Adam([{"params": [np.ones(2)]}, {"params": [np.ones(2)], option: np.inf}])
    optimizer = optim.Adam([np.ones(2)])
    with pytest.raises(ValueError, match=f"{option} must be finite"):
        optimizer.param_groups[0][option] = np.inf


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda w: optim.Adam(w, learning_rate=0.1), "Adam has no argument 'learning_rate': did you mean 'lr'"),
        (lambda w: optim.SGD(w, 0.1, wd=0.1), "no argument 'wd': did you mean 'weight_decay'"),
        (lambda w: optim.Adam(w, beta1=0.9), "no argument 'beta1': did you mean 'betas'"),
        (lambda w: nn.Adam(w, lr=0.1), "Adam has no argument 'lr': did you mean 'learning_rate'"),
        (lambda w: nn.Momentum(w, 0.1, 0.9, wd=0.1), "no argument 'wd': did you mean 'weight_decay'"),
        (lambda w: mxopt.create("adam", lr=0.1), "no argument 'lr': did you mean 'learning_rate'"),  # type: ignore[call-overload]
        (lambda w: mxopt.create("adam", weight_decay=0.1), "no argument 'weight_decay': did you mean 'wd'"),  # type: ignore[call-overload]
    ],
)
def test_the_families_names_suggest_each_other(make: Any, says: str) -> None:
    with pytest.raises((TypeError, KeyError), match=says):
        make([np.ones(2)])


def test_a_group_that_is_refused_is_not_added() -> None:
    (weight,) = normal(0, [(5,)])
    optimizer = optim.SGD([weight], 0.1)
    bad: Any
    for bad in ({"params": [weight]}, {"params": [np.zeros(2)], "lr": -1}, {"params": 3}, []):
        with pytest.raises((ValueError, TypeError)):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == len(optimizer.parameters) == 1
    optimizer((np.ones(5, np.float32),))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(optimizer="SGD"), "those of SGD, this is Adam"),
        (lambda d: d["param_groups"].pop(), "1 group, the optimizer 2"),
        (lambda d: d["param_groups"][0].update(params=["a", "x"]), "group 0 has 'x' too many"),
        (lambda d: d["param_groups"][1].update(params=[]), "group 1 lacks 'b'"),
        (lambda d: d["parameters"].update(a=((6,), "float32")), r"'a' is float32 \(6,\) there, float32 \(5,\) here"),
        (lambda d: d["parameters"].update(b=((3, 4), "float64")), "parameter 'b' is float64"),
        (lambda d: d["parameters"].pop("b"), "parameter 'b' is unknown there"),
        (lambda d: d.pop("parameters"), "no state_dict of an optimizer"),
        (lambda d: d["param_groups"][0].pop("eps"), "group 0 lacks the options eps"),
        (lambda d: d["param_groups"][0].update(lr=-1.0), "lr must not be negative"),
        (lambda d: d["state"].update(c={}), "'c', which is no parameter"),
        (lambda d: d["state"]["a"].pop("var"), "parameter 'a' lacks 'var'"),
        (lambda d: d["state"]["a"].update(more=np.zeros(5, np.float32)), "parameter 'a' keeps no 'more'"),
        (lambda d: d["state"]["b"].update(mean=np.zeros(5, np.float32)), r"parameter 'b': 'mean' is float32 \(5,\)"),
        (lambda d: d["state"]["b"].update(mean=np.zeros((3, 4))), "parameter 'b': 'mean' is float64"),
        (lambda d: d["state"]["b"].update(step=0), "'step' is 0"),
        (lambda d: d.pop("state"), "no state_dict of an optimizer"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change: Callable[[Any], Any], says: str) -> None:
    a, b = normal(0, [(5,), (3, 4)])
    optimizer = optim.Adam([{"params": [Parameter(a, "a")]}, {"params": [Parameter(b, "b")], "lr": 0.5}])
    optimizer(normal(1, [(5,), (3, 4)]))
    document = optimizer.state_dict()
    change(document)
    before = arrays_in(optimizer.state_dict())
    with pytest.raises(StatesError, match=says):
        optimizer.load_state_dict(document)
    assert arrays_in(optimizer.state_dict()) == before


def test_states_without_arrays_say_whose_they_are_too() -> None:
    first, second = (optim.SGD([Parameter(np.ones(n, np.float32), "w")], 0.1) for n in (5, 6))
    first((np.ones(5, np.float32),))
    document = load_document(dump_document(first.state_dict()))
    with pytest.raises(StatesError, match=r"'w' is float32 \(5,\) there, float32 \(6,\) here"):
        second.load_state_dict(document)
    first.load_state_dict(document)
