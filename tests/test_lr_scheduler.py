"""Schedules: MXNet's numbers at every update, pure functions of it, and what they refuse."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import lr_scheduler
from mxopt.errors import ArgumentError
from mxopt.lr_scheduler import CosineScheduler, FactorScheduler, LRScheduler, MultiFactorScheduler, PolyScheduler

FILE = np.load(Path(__file__).parent / "data" / "mxnet" / "schedulers.npz", allow_pickle=False)
RECORDED = json.loads(str(FILE["json"]))
RATES, COUNTS = FILE["assigned/rates"], FILE["assigned/counts"]  # after base_lr was assigned


def make(case: dict[str, Any], kwargs: str = "kwargs") -> Any:
    return getattr(lr_scheduler, case["scheduler"])(**case[kwargs])


def named(case: dict[str, Any]) -> str:
    return " ".join([case.get("optimizer", ""), case["scheduler"], *(f"{k}={v}" for k, v in case["kwargs"].items())])


@pytest.mark.parametrize("case", RECORDED["cases"], ids=named)
def test_recorded_schedules_to_the_last_bit(case: dict[str, Any]) -> None:
    updates, values = FILE[case["num_updates"]].tolist(), FILE[case["values"]].tolist()
    schedule = make(case)
    end = len(updates) if case["departs"] is None else case["departs"][0]
    assert [schedule(n) for n in updates[:end]] == values[:end]


@pytest.mark.parametrize("case", [c for c in RECORDED["cases"] if c["departs"]], ids=named)
def test_beyond_the_end_the_rate_is_the_final_one(case: dict[str, Any]) -> None:
    schedule = make(case)
    departs = FILE[case["num_updates"]].tolist()[case["departs"][0] :]
    assert {schedule(n) for n in departs} == {schedule.final_lr}


@pytest.mark.parametrize("case", RECORDED["cases"], ids=named)
def test_any_order_of_questions_gives_the_same_answers(case: dict[str, Any], rng: np.random.Generator) -> None:
    updates = list(range(70))
    in_order = [make(case)(n) for n in updates]
    schedule = make(case)
    for n in rng.permutation(updates * 2).tolist():
        assert schedule(n) == in_order[n]
    schedule, asked_less = make(case), make(case)
    assert [schedule(n) for n in range(20)] == in_order[:20]
    asked_less.reach(19)
    for each in (schedule, asked_less):
        each.base_lr = 0.25
    assert [schedule(n) for n in reversed(updates)] == [asked_less(n) for n in updates][::-1]


@pytest.mark.parametrize("case", RECORDED["attached"], ids=named)
def test_recorded_schedules_of_optimizers(case: dict[str, Any]) -> None:
    schedule = make(case, "scheduler_kwargs")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = mxopt.create(case["optimizer"], lr_scheduler=schedule, **case["kwargs"])
    assert [w for w in caught if "base_lr" in str(w.message)] or not case["printed"]
    assert bool(caught) == case["printed"]
    assert schedule.base_lr == case["base_lr"]
    rates, weight = [optimizer.learning_rate], np.ones(2, np.float32)
    updater = mxopt.get_updater(optimizer)
    expected = FILE[case["learning_rates"]].tolist()
    while len(rates) < len(expected):
        updater(0, np.ones(2, np.float32), weight)
        rates.append(optimizer.learning_rate)
    assert rates == expected


def scheduled(case: dict[str, Any]) -> tuple[mxopt.Optimizer, LRScheduler]:
    schedule = make(case, "scheduler_kwargs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mxopt.create(case["optimizer"], lr_scheduler=schedule, **case["kwargs"]), schedule


def assigned(case: dict[str, Any]) -> str:
    return " ".join([named(case), *(f"{k}={v}" for k, v in case["scheduler_kwargs"].items()), str(case["events"])])


@pytest.mark.parametrize("resumed", [None, 5], ids=["", "resumed"])
@pytest.mark.parametrize("number", range(len(RECORDED["assigned"])), ids=lambda k: assigned(RECORDED["assigned"][k]))
def test_a_rate_assigned_in_mid_training_counts_from_there(number: int, resumed: int | None) -> None:
    case = RECORDED["assigned"][number]
    optimizer, schedule = scheduled(case)
    updater, weight = mxopt.get_updater(optimizer), np.ones((2, 3), np.float32)
    rates, read = RATES[number].tolist()
    counts = COUNTS[number].tolist()
    for update in range(1, len(rates) + 1):
        if update == resumed:
            saved = updater.get_states(dump_optimizer=True)
            updater = mxopt.get_updater(mxopt.create("sgd"))
            updater.set_states(saved)
            optimizer = updater.optimizer
            schedule = optimizer.lr_scheduler
        for at, value in case["events"]:
            if at == update:
                schedule.base_lr = schedule.base_lr * float(value) if isinstance(value, str) else value
        updater(0, np.ones((2, 3), np.float32), weight)
        assert optimizer.learning_rate == rates[update - 1], update
        assert schedule.base_lr == read[update - 1], update
        if isinstance(schedule, FactorScheduler):
            assert schedule.count == counts[update - 1], update


def test_a_subclass_written_for_mxnet_may_count_itself() -> None:
    class Copied(FactorScheduler):
        """Does as MXNet's class does."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.count = 0

        def __call__(self, num_update: int) -> float:
            while num_update > self.count + self.step:
                self.count += self.step
                self.base_lr = max(self.base_lr * self.factor, self.stop_factor_lr)
            return self.base_lr

    ours, theirs = FactorScheduler(3, 0.5, base_lr=1.0), Copied(3, 0.5, base_lr=1.0)
    assert [theirs(n) for n in range(20)] == [ours(n) for n in range(20)]


def test_the_rate_is_that_of_the_most_updated_parameter() -> None:
    optimizer = mxopt.create("sgd", lr_scheduler=FactorScheduler(1, 0.5, base_lr=1.0))
    updater = mxopt.get_updater(optimizer)
    weights = [np.zeros(1, np.float32) for _ in range(2)]
    for _ in range(3):
        updater(0, np.ones(1, np.float32), weights[0])
    updater(1, np.ones(1, np.float32), weights[1])
    assert optimizer.num_update == 3
    assert weights[1] == -0.25


def test_a_huge_count_is_answered_at_once() -> None:
    assert FactorScheduler(1, 0.5, base_lr=1.0)(10**15) == 1e-8
    assert FactorScheduler(1, 1.0, base_lr=1.0)(10**15) == 1.0
    assert PolyScheduler(100, final_lr=0.5)(10**15) == 0.5
    assert MultiFactorScheduler([1, 10], 0.5, base_lr=1.0)(10**15) == 0.25


def test_a_warm_up_as_long_as_the_schedule() -> None:
    for schedule in (
        PolyScheduler(5, 1.0, warmup_steps=5, final_lr=0.25),
        CosineScheduler(5, 1.0, 0.25, warmup_steps=5),
    ):
        assert [schedule(n) for n in range(4, 7)] == [0.8, 0.25, 0.25]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LRScheduler(warmup_steps=-1), "warmup_steps"),
        (lambda: LRScheduler(warmup_steps=1.5), "warmup_steps"),
        (lambda: LRScheduler(warmup_steps=True), "warmup_steps"),
        (lambda: LRScheduler(0.1, warmup_begin_lr=0.2), "warmup_begin_lr"),
        (lambda: LRScheduler(float("nan")), "base_lr"),
        (lambda: LRScheduler(0.1, warmup_begin_lr=float("nan")), "warmup_begin_lr"),
        (lambda: LRScheduler(warmup_mode="cosine"), "warmup_mode"),
        (lambda: FactorScheduler(0), "step"),
        (lambda: FactorScheduler(1, 1.5), "factor"),
        (lambda: FactorScheduler(1, float("nan")), "factor"),
        (lambda: MultiFactorScheduler([]), "step"),
        (lambda: MultiFactorScheduler([3, 3]), "step"),
        (lambda: MultiFactorScheduler([0, 3]), "step"),
        (lambda: MultiFactorScheduler([5, 3]), "step"),
        (lambda: MultiFactorScheduler([1], 2.0), "factor"),
        (lambda: PolyScheduler(0), "max_update"),
        (lambda: PolyScheduler(2.5), "max_update"),
        (lambda: CosineScheduler(-3), "max_update"),
        (lambda: CosineScheduler(10, warmup_steps=100), "max_update=110"),
        (lambda: CosineScheduler(10, 0.1, "0"), "final_lr"),
        (lambda: FactorScheduler("2"), "step"),
        (lambda: FactorScheduler(2, base_lr="0.1"), "base_lr"),
        (lambda: FactorScheduler(2, "0.1"), "factor"),
        (lambda: MultiFactorScheduler(3), "step must be a list"),
        (lambda: setattr(FactorScheduler(2), "base_lr", None), "base_lr"),
        (lambda: PolyScheduler(10, warmup_steps=11), "max_update=21"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_schedule_without_a_rule_says_so() -> None:
    with pytest.raises(NotImplementedError, match="after_warmup"):
        LRScheduler()(1)


@pytest.mark.parametrize("wrong", [-1, float("nan"), -float("inf"), None])
@pytest.mark.parametrize(
    "schedule",
    [FactorScheduler(2), MultiFactorScheduler([2]), CosineScheduler(5, warmup_steps=2), PolyScheduler(5)],
    ids=lambda schedule: type(schedule).__name__,
)
def test_there_is_no_rate_of_a_number_of_updates_below_0(schedule: LRScheduler, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{type(schedule).__name__}: num_update must be 0 or more, got {wrong}"):
        schedule(wrong)


def test_a_power_below_0_and_steps_that_are_no_numbers_are_refused_when_they_are_given() -> None:
    with pytest.raises(ArgumentError, match="PolyScheduler: pwr must not be negative, got -1"):
        PolyScheduler(5, pwr=-1)
    for steps in (["a"], [1, None], [float("nan")]):
        with pytest.raises(ArgumentError, match="MultiFactorScheduler: step"):
            MultiFactorScheduler(steps)


def test_a_rate_beside_a_schedule_that_cannot_take_it_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"SGD: learning_rate=0\.1 would overwrite the base_lr of lr_scheduler"):
        mxopt.create("sgd", learning_rate=0.1, lr_scheduler=lambda n: 0.1)
    assert mxopt.create("adam", lr_scheduler=lambda n: 0.1).learning_rate == 0.1  # whose own is only a default


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"state_dtype": "float8"}),
        ("ftrl", {"state_dtype": "bfloat16"}),
        ("sgd", {"param_idx2name": {0: 1}}),
        ("groupadagrad", {"wd": 0.1}),
    ],
)
def test_an_optimizer_that_cannot_be_made_leaves_the_schedule_as_it_was(name: str, options: dict[str, Any]) -> None:
    schedule = FactorScheduler(2, base_lr=1.0)
    with pytest.raises((ValueError, TypeError)):
        mxopt.create(name, learning_rate=0.3, lr_scheduler=schedule, **options)
    assert (schedule.base_lr, schedule.assigned) == (1.0, (1.0, 0))


@pytest.mark.parametrize("ahead", [(0, 1), (2,), (4, 5)])
@pytest.mark.parametrize("name", ["sgd", "signum", "adagrad"])
def test_a_list_has_one_rate_whichever_of_its_parameters_are_ahead(name: str, ahead: tuple[int, ...]) -> None:
    """In MXNet each has that of its turn, so that its place in the list decides."""

    def optimizer() -> mxopt.Optimizer:
        schedule = FactorScheduler(1, factor=0.5, base_lr=1.0)
        return mxopt.create(name, lr_scheduler=schedule, learning_rate=1.0)

    def moves(update: Callable[[Sequence[int]], object]) -> bytes:
        for one in ahead:
            update([one])
        before = np.concatenate(weights)
        update(range(6))
        apart = np.delete(np.concatenate(weights) - before, ahead)
        assert len(set(apart.tolist())) == 1
        return apart.tobytes()

    one, weights = np.ones(1, np.float32), [np.zeros(1, np.float32) for _ in range(6)]
    updater = mxopt.get_updater(optimizer())
    listed = moves(lambda which: updater([*which], [one] * len(which), [weights[k] for k in which]))

    weights, store = [np.zeros(1, np.float32) for _ in range(6)], mxopt.kvstore.create("local")
    store.set_optimizer(optimizer())
    store.init(list(range(6)), weights)
    pushed = moves(lambda which: store.pushpull([*which], [one] * len(which), [weights[k] for k in which]))

    weights = [np.zeros(1, np.float32) for _ in range(6)]
    trainer = mxopt.Trainer(weights, optimizer())

    def step(which: Sequence[int]) -> None:
        for k, parameter in enumerate(trainer.parameters):
            parameter.grad = one if k in which else None
        trainer.step(1, ignore_stale_grad=True)

    assert listed == pushed == moves(step)
