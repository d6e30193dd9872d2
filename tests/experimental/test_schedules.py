"""Schedules beyond the recorded runs: changes from outside, other optimizers, groups that join."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from schedule_table import TABLE, every, sgd

import mxopt
from mxopt import document
from mxopt.errors import ArgumentError
from mxopt.experimental.optim import lr_scheduler as schedules
from mxopt.lr_scheduler import FactorScheduler

CLOSED = ["StepLR", "MultiStepLR", "ExponentialLR", "ConstantLR", "LinearLR", "PolynomialLR", "CosineAnnealingLR"]
closed = pytest.mark.parametrize("make", [TABLE[name] for name in CLOSED], ids=CLOSED)


def rate(optimizer: Any) -> Any:
    return optimizer.param_groups[0]["lr"]


@closed
def test_a_schedule_left_alone_gives_its_formula_to_the_last_bit(make: Any) -> None:
    optimizer = sgd()
    schedule = make(schedules, optimizer)
    for step in range(1, 20):
        schedule.step()
        assert [rate(optimizer)] == schedule.closed_form(step)


@every
def test_a_rate_assigned_from_outside_is_where_pytorchs_schedules_go_on_from(make: Any) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = sgd(), torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    schedule, reference = make(schedules, ours), make(torch.optim.lr_scheduler, theirs)
    theirs.step()
    for step in range(16):
        if step == 4:
            ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.4
        schedule.step()
        reference.step()
        assert rate(ours) == pytest.approx(rate(theirs), rel=1e-12, abs=1e-17), step


@pytest.mark.parametrize("name", [name for name in CLOSED if name != "CosineAnnealingLR"] + ["MultiplicativeLR"])
def test_two_schedules_at_once_multiply(name: str) -> None:
    make = TABLE[name]
    both, alone = sgd(), sgd()
    first, second, single = schedules.ExponentialLR(both, 0.5), make(schedules, both), make(schedules, alone)
    for step in range(1, 8):
        first.step()
        second.step()
        single.step()
        assert rate(both) == pytest.approx(rate(alone) * 0.5**step, rel=1e-12)


def test_the_documents_loop_drives_an_optimizer_of_create() -> None:
    optimizer = mxopt.create("sgd", learning_rate=0.1)
    updater, weight = mxopt.get_updater(optimizer), np.zeros(1, np.float32)
    scheduler = schedules.StepLR(optimizer, 2)
    seen = []
    for _ in range(6):
        before = weight.copy()
        updater(0, np.ones(1, np.float32), weight)
        seen.append(float(before[0] - weight[0]))
        scheduler.step()
    np.testing.assert_allclose(seen, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-5)


def test_an_optimizer_with_a_schedule_of_its_own_takes_no_other() -> None:
    optimizer = mxopt.create("sgd", lr_scheduler=FactorScheduler(10))
    with pytest.raises(ValueError, match="lr_scheduler of its own"):
        schedules.StepLR(optimizer, 2)


def test_a_sequence_refuses_what_it_cannot_run() -> None:
    optimizer = sgd()
    one, other = schedules.StepLR(optimizer, 2), schedules.StepLR(sgd(), 2)
    for parts, milestones in (([], []), ([one, other], [1]), ([one, one], []), ([one, one, one], [3, 2])):
        with pytest.raises(ValueError, match=r"schedule|milestones"):
            schedules.SequentialLR(optimizer, parts, milestones)
    with pytest.raises(TypeError, match="ReduceLROnPlateau"):
        schedules.SequentialLR(optimizer, [one, schedules.ReduceLROnPlateau(optimizer)], [1])


SEQUENCES: dict[str, Callable[[Any, int], schedules.LRScheduler]] = {
    "two": lambda o, last: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, 0.1, 20), schedules.ExponentialLR(o, 0.9)], [3], last
    ),
    "restarts": lambda o, last: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, 1.0, 4), schedules.CosineAnnealingWarmRestarts(o, 3, 2, 0.01)], [4], last
    ),
    "nested": lambda o, last: schedules.SequentialLR(
        o,
        [
            schedules.SequentialLR(o, [schedules.ConstantLR(o, 0.5, 2), TABLE["MultiplicativeLR"](schedules, o)], [2]),
            schedules.SequentialLR(o, [schedules.StepLR(o, 2, 0.5), schedules.ExponentialLR(o, 0.9)], [3]),
        ],
        [5],
        last,
    ),
    "warm restarts": lambda o, last: schedules.CosineAnnealingWarmRestarts(o, 3, 2, 0.01, last),
    "warm restarts of one length": lambda o, last: schedules.CosineAnnealingWarmRestarts(o, 4, 1, 0.01, last),
}  # fmt: skip


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("last", [0, 2, 3, 4, 6, 8, 13])
def test_a_schedule_resumed_by_its_last_epoch_has_the_rates_of_an_uninterrupted_run(make: Any, last: int) -> None:
    whole, resumed = sgd(1.0), sgd(1.0)
    resumed.param_groups[0]["initial_lr"] = 1.0
    schedule = make(whole, -1)
    for _ in range(last + 1):
        schedule.step()
    other = make(resumed, last)
    for _ in range(9):
        assert rate(resumed) == rate(whole)
        assert (other.last_epoch, other.get_last_lr()) == (schedule.last_epoch, schedule.get_last_lr())
        schedule.step()
        other.step()


def test_a_sequence_within_a_sequence_runs_as_it_does_alone() -> None:
    def inner(o: Any) -> Any:
        return schedules.SequentialLR(o, [schedules.ConstantLR(o, 0.5, 2), schedules.ExponentialLR(o, 0.9)], [2])

    alone, part = sgd(), sgd()
    first, second = inner(alone), schedules.SequentialLR(part, [inner(part), schedules.ExponentialLR(part, 0.8)], [4])
    for _ in range(4):
        assert rate(part) == rate(alone)
        first.step()
        second.step()
    assert rate(part) == 0.1  # the second schedule's step 0


GROWING = {**TABLE, "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=0)}


@pytest.mark.parametrize("name", GROWING)
def test_a_group_that_is_added_joins_the_schedule(name: str) -> None:
    optimizer = sgd()
    schedule = GROWING[name](schedules, optimizer)  # type: ignore[no-untyped-call]
    metric = (1.0,) if name == "ReduceLROnPlateau" else ()
    schedule.step(*metric)
    optimizer.add_param_group({"params": [np.zeros(1, np.float32)], "lr": 0.1})
    late = sgd()  # a new group under a formula of the step goes where one that was there from the first goes
    late_schedule = GROWING[name](schedules, late)  # type: ignore[no-untyped-call]
    late_schedule.step(*metric)
    for _ in range(5):
        schedule.step(*metric)
        late_schedule.step(*metric)
        assert len(schedule.get_last_lr()) == len(schedule.base_lrs) == 2
        assert schedule.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
        assert rate(optimizer) == rate(late)
    assert schedule.base_lrs[1] == 0.1


def test_a_group_cannot_join_a_schedule_that_has_other_numbers_for_each() -> None:
    optimizer = sgd(0.1, 0.2)
    schedule = schedules.CyclicLR(optimizer, [0.01, 0.02], [0.1, 0.2], 3)
    optimizer.add_param_group({"params": [np.zeros(1, np.float32)]})
    before = schedule.state_dict()
    with pytest.raises(ValueError, match="lowest_lrs for each of 2 groups, and the optimizer has 3"):
        schedule.step()
    assert schedule.state_dict() == before


@pytest.mark.parametrize(
    "first",
    [
        lambda o: schedules.LinearLR(o, 0.5, 1.0, 3),
        lambda o: schedules.StepLR(o, 2, 0.5),
        lambda o: schedules.MultiplicativeLR(o, lambda t: 0.8),
    ],
)
def test_a_cycle_behind_another_schedule_begins_with_the_initial_rates(first: Callable[[Any], Any]) -> None:
    """As in MindSpore 2.10 and PyTorch 2.13; from the second step on the rates are the cycle's."""
    optimizer = sgd(0.05, 0.2)
    both = first(optimizer), schedules.CyclicLR(optimizer, 0.01, 0.1, 2, 3)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(2):
        for schedule in both:
            schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[0.05, 0.2], pytest.approx([0.055, 0.055]), pytest.approx([0.1, 0.1])]


@pytest.mark.parametrize("last", [0, 3, 7])
def test_a_cycle_goes_on_from_groups_with_other_initial_rates(last: int) -> None:
    """As in MindSpore 2.10: its first rates lie between these and `max_lr`."""
    optimizer = sgd(0.05)
    optimizer.param_groups[0]["initial_lr"] = 0.05
    schedule = schedules.CyclicLR(optimizer, 0.01, 0.1, 2, 3, last_epoch=last)
    height = {0: 0.5, 3: 1 / 3, 7: 2 / 3}[last]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 + 0.05 * height)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 + 0.09 * {0: 1, 3: 0, 7: 1 / 3}[last])


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda o: schedules.StepLR(o, 2, 0.5), 0.05),
        (lambda o: schedules.LambdaLR(o, lambda t: 0.9**t), 0.05),
        (lambda o: schedules.CyclicLR(o, 0.01, 0.1, 2), 0.01),
    ],
    ids=["StepLR", "LambdaLR", "CyclicLR"],
)
def test_a_plateau_notes_no_initial_rates_for_schedules_that_come_later(make: Any, first: float) -> None:
    """As in MindSpore 2.10 and PyTorch 2.13: these begin with the rate at that time."""
    optimizer = sgd(0.1)
    plateau = schedules.ReduceLROnPlateau(optimizer, patience=0)
    plateau.load_state_dict(plateau.state_dict())
    optimizer.param_groups[0]["lr"] = 0.05
    schedule = make(optimizer)
    assert (schedule.get_last_lr(), optimizer.param_groups[0]["initial_lr"]) == ([first], first)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.CyclicLR(o, [0.01, -1.0], 0.1),
        lambda o: schedules.CyclicLR(o, 0.01, [0.1, float("nan")]),
        lambda o: schedules.LambdaLR(o, lambda t: -1.0),
        lambda o: schedules.LambdaLR(o, [lambda t: 0.5, lambda t: float("nan")]),
        lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, eta_min=float("inf")),
    ],
)
def test_a_schedule_that_cannot_be_made_leaves_the_rates_and_notes_none(make: Any) -> None:
    optimizer = sgd(0.1, 0.2)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ArgumentError):
        make(optimizer)
    assert [dict(group) for group in optimizer.param_groups] == before
    other = mxopt.create("sgd", learning_rate=0.1)
    with pytest.raises(ArgumentError):
        schedules.LambdaLR(other, lambda t: float("nan"))
    other.set_learning_rate(0.05)
    assert schedules.StepLR(other, 2).base_lrs == [0.05]


def test_a_step_that_fails_is_not_counted() -> None:
    def factor(t: int) -> float:
        if t == 3:
            raise RuntimeError("no number")
        return 0.5

    for good, make in (
        (2, lambda o: schedules.LambdaLR(o, factor)),
        (4, lambda o: schedules.SequentialLR(o, [schedules.ConstantLR(o, 0.5, 9), schedules.LambdaLR(o, factor)], [2])),
    ):
        schedule = make(sgd(0.4, 0.2))
        for _ in range(good):
            schedule.step()
        before = schedule.state_dict()
        with pytest.raises(RuntimeError):
            schedule.step()
        assert schedule.state_dict() == before


def test_cosine_beside_a_plateau_never_brings_a_rate_below_0() -> None:
    optimizer = sgd(0.05)
    cosine = schedules.CosineAnnealingLR(optimizer, 9, eta_min=0.001)
    other = schedules.MultiplicativeLR(optimizer, lambda t: 0.6)
    seen = []
    for _ in range(40):
        cosine.step()
        other.step()
        seen.append(rate(optimizer))
    assert min(seen) == 0.0
    assert cosine.last_epoch == other.last_epoch == 40


def test_numpys_numbers_go_wherever_a_number_goes() -> None:
    f, i = np.float32, np.int64
    for plain, made in (
        (lambda o: schedules.StepLR(o, 3, 0.5), lambda o: schedules.StepLR(o, i(3), f(0.5))),
        (lambda o: schedules.MultiStepLR(o, [2, 4], 0.5), lambda o: schedules.MultiStepLR(o, np.array([2, 4]), f(0.5))),
        (lambda o: schedules.LinearLR(o, 0.25, 0.5, 4), lambda o: schedules.LinearLR(o, f(0.25), f(0.5), i(4))),
        (lambda o: schedules.CosineAnnealingLR(o, 5, 0.25), lambda o: schedules.CosineAnnealingLR(o, i(5), f(0.25))),
        (
            lambda o: schedules.CyclicLR(o, 0.25, 0.5, 2),
            lambda o: schedules.CyclicLR(o, f(0.25), np.array([0.5]), i(2)),
        ),
        (
            lambda o: schedules.CosineAnnealingWarmRestarts(o, 2, 2, 0.25),
            lambda o: schedules.CosineAnnealingWarmRestarts(o, i(2), i(2), f(0.25)),
        ),
    ):
        first, second = plain(sgd()), made(sgd())
        for _ in range(6):
            first.step()
            second.step()
            assert first.get_last_lr() == second.get_last_lr()
        assert document.load_document(document.dump_document(second.state_dict())) == first.state_dict()


def test_a_plateau_takes_pytorchs_loss() -> None:
    torch = pytest.importorskip("torch")
    schedule = schedules.ReduceLROnPlateau(sgd(), patience=np.int64(3))
    schedule.step(torch.full((2,), 1.5, requires_grad=True).sum())
    assert schedule.best == 3.0


def test_a_plateau_takes_arrays_and_refuses_texts() -> None:
    schedule = schedules.ReduceLROnPlateau(sgd())
    schedule.step(np.array(0.5, np.float32))
    schedule.step(np.array([0.5], np.float32))
    before = schedule.state_dict()
    for wrong in ("0.5", np.ones(2)):
        with pytest.raises(ValueError, match="metrics must be a "):
            schedule.step(wrong)
    assert schedule.state_dict() == before
    schedule.step(float("nan"))
    assert schedule.num_bad_epochs == 2


@pytest.mark.parametrize("steps", [0, -1, -3])
def test_a_constant_schedule_of_no_steps_keeps_its_factor_until_a_step_is_set_by_number(steps: int) -> None:
    """As MindSpore's does, whose formula for a step's number says otherwise, and PyTorch's."""
    optimizer = sgd()
    schedule = schedules.ConstantLR(optimizer, 0.5, steps)
    rates = [rate(optimizer)]
    for epoch in (None, None, None, 2, None, 0):
        schedule.step() if epoch is None else schedule.step(epoch)
        rates.append(rate(optimizer))
    assert rates == [0.05, 0.05, 0.05, 0.05, 0.1, 0.1, 0.1]
