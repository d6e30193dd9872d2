"""States of schedules: what is loaded goes on, and what doesn't fit is refused whole."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from schedule_table import every, sgd

from mxopt.errors import StatesError
from mxopt.experimental.optim import lr_scheduler as schedules


def test_the_state_of_a_sequence_that_a_group_has_joined_can_be_loaded() -> None:
    optimizer = sgd(0.1)
    parts = [schedules.ConstantLR(optimizer, 0.5, 2), schedules.ExponentialLR(optimizer, 0.9)]
    schedule = schedules.SequentialLR(optimizer, parts, [2])
    schedule.step()
    schedule.step()
    optimizer.add_param_group({"params": [np.zeros(2, np.float32)], "lr": 0.2})
    schedule.step()
    document = schedule.state_dict()
    schedule.step()
    schedule.load_state_dict(document)
    assert schedule.state_dict() == document


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(scheduler="ExponentialLR"), "that of ExponentialLR, this is StepLR"),
        (lambda d: d.pop("gamma"), "lacks gamma"),
        (lambda d: d.update(T_max=3), "has T_max too many"),
        (lambda d: d.update(rates=[0.1]), "needs one for each of 2 groups"),
        (lambda d: d.clear(), "no state of a schedule"),
        (lambda d: d.update(rates=[0.1, "x"]), "rates is"),
        (lambda d: d.update(rates=[0.1, float("nan")]), "rates is"),
        (lambda d: d.update(rates=[0.1, -1.0]), "lr must not be negative"),
        (lambda d: d.update(base_lrs=[0.1, None]), "base_lrs is"),
        (lambda d: d.update(_last_lr=7), "_last_lr is"),
        (lambda d: d.update(last_epoch="x"), "last_epoch must be a number"),
        (lambda d: d.update(last_epoch=float("nan")), "last_epoch is NaN"),
        (lambda d: d.update(step_size=0), "step_size must be 1 or more"),
        (lambda d: d.update(gamma="x"), "gamma must be a float"),
    ],
)
def test_a_schedules_state_that_does_not_fit_is_refused_whole(change: Callable[[Any], Any], says: str) -> None:
    schedule = schedules.StepLR(sgd(0.1, 0.2), 2)
    schedule.step()
    document = schedule.state_dict()
    change(document)
    before = schedule.state_dict()
    with pytest.raises(StatesError, match=says):
        schedule.load_state_dict(document)
    assert schedule.state_dict() == before


@pytest.mark.parametrize("wrong", ["x", None, [], [1], {}, float("nan"), [None, None]], ids=repr)
@every
def test_no_state_is_taken_that_a_step_could_not_go_on_from(make: Any, wrong: Any) -> None:
    good = make(schedules, sgd(0.1, 0.2)).state_dict()
    for key in good:
        schedule = make(schedules, sgd(0.1, 0.2))
        before = schedule.state_dict()
        try:
            schedule.load_state_dict({**good, key: wrong})
        except StatesError:
            assert schedule.state_dict() == before
            assert schedule._rates() == before["rates"]
        else:
            schedule.step()


def test_a_sequences_state_is_taken_whole_or_not_at_all() -> None:
    def sequence() -> schedules.SequentialLR:
        optimizer = sgd(0.1)
        parts = [schedules.ConstantLR(optimizer, 0.5, 2), schedules.ExponentialLR(optimizer, 0.9)]
        return schedules.SequentialLR(optimizer, parts, [3])

    good = sequence()
    for _ in range(4):
        good.step()
    document = good.state_dict()
    second = document["schedulers"][1]
    for wrong in (
        {"milestones": [3, 4]}, {"milestones": None}, {"schedulers": [second]}, {"rates": [-1.0]}, {"rates": ["x"]},
        {"schedulers": [document["schedulers"][0], {**second, "gamma": "x"}]}, {"last_epoch": None},
    ):  # fmt: skip
        schedule = sequence()
        before = schedule.state_dict()
        with pytest.raises(StatesError):
            schedule.load_state_dict({**document, **wrong})
        assert schedule.state_dict() == before
        schedule.load_state_dict(document)
        schedule.step()
