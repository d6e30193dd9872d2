"""Options that are set after construction to what the constructor refuses: an update that can't go
on says so in its words, and changes nothing."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from mxopt import Parameter, create, get_updater, kvstore, lr_scheduler, nn
from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.experimental import optim


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape or 3, np.float32)


REFUSED = {  # what the constructors refuse, and the words
    "adam": ("beta1", 1, "Adam: beta1 must be within [0, 1), got 1"),
    "adamw": ("beta2", 1.0, "AdamW: beta2 must be within [0, 1), got 1.0"),
    "adabelief": ("beta1", np.float32(1), "AdaBelief: beta1 must be within [0, 1), got"),
    "adamax": ("beta1", 1, "Adamax: beta1 must be within [0, 1), got 1"),
    "nadam": ("beta2", 1, "Nadam: beta2 must be within [0, 1), got 1"),
    "ftml": ("beta2", 1, "FTML: beta2 must be within [0, 1), got 1"),
    "lamb": ("beta1", 1, "LAMB: beta1 must be within [0, 1), got 1"),
    "lans": ("beta2", 1, "LANS: beta2 must be within [0, 1), got 1"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("several", [False, True], ids=["one", "list"])
def test_an_option_that_was_set_to_what_the_constructor_refuses_is_told_in_its_words(name: str, several: bool) -> None:
    """A beta of 1 ended Adam in a bare ZeroDivisionError, and Nadam and FTML divided by 0."""
    option, wrong, says = REFUSED[name]
    with pytest.raises(ArgumentError, match=re.escape(says)):
        create(name, **{option: wrong})
    updater, weights = get_updater(create(name, learning_rate=0.1)), [ones(), ones()]

    def step() -> None:
        updater([0, 1], [ones(), ones()], weights) if several else updater(0, ones(), weights[0])

    step()
    before, good = [w.tolist() for w in weights], getattr(updater.optimizer, option)
    setattr(updater.optimizer, option, wrong)
    with pytest.raises(ArgumentError, match=re.escape(says)):
        step()
    assert ([w.tolist() for w in weights], updater.optimizer.count(0)) == (before, 1)
    setattr(updater.optimizer, option, good)
    step()
    assert updater.optimizer.count(0) == 2


@pytest.mark.parametrize(
    ("make", "option", "wrong", "says"),
    [
        (nn.Adam, "beta1", 1.0, "Adam: beta1 must be within (0, 1), got 1.0"),
        (nn.Lamb, "beta2", 1.0, "Lamb: beta2 must be within (0, 1), got 1.0"),
        (nn.AdaMax, "beta1", 1, "AdaMax: beta1 must be a float, got 1"),
        (nn.RMSProp, "rho", "0.9", "RMSProp: rho must be a float, got '0.9'"),
        (nn.Adagrad, "loss_scale", 0.0, "Adagrad: loss_scale must be above 0, got 0.0"),
        (nn.ASGD, "lambd", None, "ASGD: lambd must be a float, got None"),
    ],
)
def test_so_is_one_of_nn(make: Any, option: str, wrong: Any, says: str) -> None:
    weight = ones()
    optimizer = make([weight], learning_rate=0.1)
    optimizer((ones(),))
    before = weight.tolist()
    setattr(optimizer, option, wrong)
    with pytest.raises(ArgumentError, match=re.escape(says)):
        optimizer((ones(),))
    assert (weight.tolist(), optimizer.global_step) == (before, 1)


@pytest.mark.parametrize("name", ["nn.Adam", "nn.Lamb", "lamb", "ftml"])
def test_betas_that_single_precision_rounds_to_one_are_told(name: str) -> None:
    """The constructors take them: they are right for float64."""
    for dtype in (np.float32, np.float64):
        weight, betas = np.ones(3, dtype), {"learning_rate": 0.1, "beta1": 0.9, "beta2": 1 - 1e-9}
        if name.startswith("nn."):
            optimizer = getattr(nn, name[3:])([weight], **betas)
            step = partial(optimizer, (np.ones(3, dtype),))
        else:
            step = partial(get_updater(create(name, **betas)), 0, np.ones(3, dtype), weight)
        if dtype is np.float64:
            step()
            continue
        with pytest.raises(ArgumentError, match="can't be told from 1 in float32"):
            step()
        assert weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "option", "wrong", "says"),
    [
        ("sgd", "lazy_update", np.array([1, 0]), "SGD: lazy_update must be True or False, got array([1, 0])"),
        ("rmsprop", "centered", np.array([1, 0]), "RMSProp: centered must be True or False, got array([1, 0])"),
        ("adafactor", "beta1", np.array([0.1, 0.2]), "Adafactor: beta1 must be a single number, got an array"),
        ("nag", "momentum", [0.9], "NAG: momentum must be a number, got [0.9]"),
        ("lars", "momentum", np.array([0.9, 0.8]), "LARS: momentum must be a single number, got an array"),
        ("dcasgd", "momentum", None, "DCASGD: momentum must be a number, got None"),
    ],
)
def test_an_array_where_one_value_belongs_is_told(name: str, option: str, wrong: Any, says: str) -> None:
    """Lists ended in NumPy's words about the truth of an array."""
    updater, weights = get_updater(create(name, learning_rate=0.1)), [ones(), ones()]
    updater([0, 1], [ones(), ones()], weights)
    before = [w.tolist() for w in weights]

    def set_and_step() -> None:
        setattr(updater.optimizer, option, wrong)
        updater([0, 1], [ones(), ones()], weights)

    with pytest.raises(ArgumentError, match=re.escape(says)):
        set_and_step()
    assert ([w.tolist() for w in weights], updater.optimizer.count(0)) == (before, 1)


ARRAY: Any = np.array(["linear", "constant"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lr_scheduler.FactorScheduler(1, warmup_mode=ARRAY), "warmup_mode must be 'linear' or 'constant'"),
        (lambda: lr_scheduler.MultiFactorScheduler(np.array(3)), "step must be a list of whole numbers"),
        (lambda: optim.lr_scheduler.MultiStepLR(sgd(), np.array(3)), "milestones must be a list of int"),
        (lambda: optim.lr_scheduler.CyclicLR(sgd(), 0.1, 0.2, mode=ARRAY), "mode must be 'triangular'"),
        (lambda: optim.lr_scheduler.ReduceLROnPlateau(sgd(), ARRAY), "mode must be 'min' or 'max'"),
        (lambda: optim.Adam([ones()], betas=np.array(0.9)), "betas must be a pair of numbers"),
        (lambda: create("sgd", sym={}), "sym must have the methods attr_dict and list_arguments, got {}"),
        (lambda: create("sgd", **{"state_dtype": ["bfloat16"]}), "state_dtype must be 'bfloat16' or 'float32' or None"),
    ],
)
def test_so_it_is_by_constructors(make: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(says)):
        make()


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_an_array_with_axes_is_of_a_wrong_type_and_a_wrong_value(kind: type[Exception]) -> None:
    """MindSpore raises one or the other."""
    with pytest.raises(kind, match=r"weight_decay must be a single number, got an array of shape \(1,\)"):
        optim.SGD([ones()], lr=0.1, weight_decay=np.array([0.5]))


def sgd() -> optim.SGD:
    return optim.SGD([ones()], lr=0.1)


@pytest.mark.parametrize("table", ["param_dict", "idx2name", "lr_mult", "wd_mult"])
@pytest.mark.parametrize("wrong", [["w"], [2.0], None, 3, {0}], ids=repr)
def test_a_table_of_an_optimizer_may_only_be_set_to_a_dict(table: str, wrong: Any) -> None:
    """A list was never asked for a parameter's multipliers, in silence."""
    optimizer = create("sgd", learning_rate=0.1)
    before = getattr(optimizer, table)
    with pytest.raises(ArgumentTypeError, match=f"SGD: {table} must be a dict, got"):
        setattr(optimizer, table, wrong)
    assert getattr(optimizer, table) is before
    setattr(optimizer, table, {0: Parameter(ones(), "w", lr_mult=2.0)} if table == "param_dict" else {})


def test_rates_that_no_double_can_hold_are_told() -> None:
    """They ended in a bare OverflowError."""
    schedule = optim.lr_scheduler.ExponentialLR(sgd(), 2.0)
    with pytest.raises(ArgumentError, match="ExponentialLR: the rates of step 1024 are too large"):
        schedule.step(1024)
    assert (schedule.last_epoch, schedule.get_last_lr()) == (0, [0.1])
    optimizer = nn.SGD([ones()], nn.ExponentialDecayLR(0.1, 2.0, 1))
    optimizer.global_step = 1024
    with pytest.raises(ArgumentError, match=r"ExponentialDecayLR\(.* gives for step 1024 is too large"):
        optimizer((ones(),))


def test_a_stores_updater_must_be_a_function() -> None:
    store = kvstore.create("local")
    with pytest.raises(ArgumentTypeError, match="an updater is a function of a key, a sum and a value, got 5"):
        store._set_updater(5)
