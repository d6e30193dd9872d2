"""Learning rates as lists with a value for each step, after `mindspore.nn`'s functions.

Each is its schedule of `learning_rate_schedule`, asked once an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from mxopt.errors import ArgumentError, ArgumentTypeError, counted
from mxopt.nn.learning_rate_schedule import (
    CosineDecayLR,
    ExponentialDecayLR,
    InverseDecayLR,
    LearningRateSchedule,
    NaturalExpDecayLR,
    PolynomialDecayLR,
    WarmUpLR,
)
from mxopt.options import Declared, Exact, StepCount, checked

Restarts = Annotated[bool, Exact("", "whether the decay starts anew")]
MILESTONE, RATE = Declared(StepCount), Declared(Annotated[float, Exact()])


def piecewise_constant_lr(milestone: Sequence[int], learning_rates: Sequence[float]) -> list[float]:
    """`learning_rates[k]` from step `milestone[k - 1]` (0 for the first) up to, not including, step
    `milestone[k]`.

    Parameters
    ----------
    milestone : list or tuple of int
        1 or more each, none below the one before.
    learning_rates : list or tuple of float
        As many.

    >>> piecewise_constant_lr([2, 5], [0.1, 0.05])
    [0.1, 0.1, 0.05, 0.05, 0.05]
    """
    owner = "piecewise_constant_lr"
    for name, value in {"milestone": milestone, "learning_rates": learning_rates}.items():
        if not isinstance(value, list | tuple):
            raise ArgumentTypeError(f"{owner}: {name} must be a list or a tuple, got {value!r}")
    if len(milestone) != len(learning_rates):
        raise ArgumentError(
            f"{owner}: milestone has {counted(len(milestone), 'value')}, learning_rates {len(learning_rates)}"
        )
    rates: list[float] = []
    for k, (end, rate) in enumerate(zip(milestone, learning_rates, strict=True)):
        MILESTONE.check(f"{owner}: milestone[{k}]", end)
        RATE.check(f"{owner}: learning_rates[{k}]", rate)
        if end < len(rates):
            raise ArgumentError(f"{owner}: milestone[{k}] is {end}, below the {len(rates)} before it")
        rates += [rate] * (end - len(rates))
    return rates


@checked
def exponential_decay_lr(
    learning_rate: float,
    decay_rate: float,
    total_step: StepCount,
    step_per_epoch: StepCount,
    decay_epoch: StepCount,
    is_stair: bool = False,
) -> list[float]:
    """`learning_rate * decay_rate ** (epoch / decay_epoch)` for `total_step` steps; see
    `ExponentialDecayLR`.

    >>> exponential_decay_lr(0.1, 0.5, total_step=4, step_per_epoch=2, decay_epoch=1)
    [0.1, 0.1, 0.05, 0.05]
    """
    return _by_epoch(ExponentialDecayLR(learning_rate, decay_rate, decay_epoch, is_stair), total_step, step_per_epoch)


@checked
def natural_exp_decay_lr(
    learning_rate: float,
    decay_rate: float,
    total_step: StepCount,
    step_per_epoch: StepCount,
    decay_epoch: StepCount,
    is_stair: bool = False,
) -> list[float]:
    """`learning_rate * exp(-decay_rate * epoch)` for `total_step` steps; see
    `NaturalExpDecayLR`."""
    return _by_epoch(NaturalExpDecayLR(learning_rate, decay_rate, decay_epoch, is_stair), total_step, step_per_epoch)


@checked
def inverse_decay_lr(
    learning_rate: float,
    decay_rate: float,
    total_step: StepCount,
    step_per_epoch: StepCount,
    decay_epoch: StepCount,
    is_stair: bool = False,
) -> list[float]:
    """`learning_rate / (1 + decay_rate * epoch / decay_epoch)` for `total_step` steps; see
    `InverseDecayLR`."""
    return _by_epoch(InverseDecayLR(learning_rate, decay_rate, decay_epoch, is_stair), total_step, step_per_epoch)


@checked
def cosine_decay_lr(
    min_lr: float, max_lr: float, total_step: StepCount, step_per_epoch: StepCount, decay_epoch: StepCount
) -> list[float]:
    """Half a cosine from `max_lr` down to `min_lr` in `decay_epoch` epochs, `total_step` steps; see
    `CosineDecayLR`."""
    return _by_epoch(CosineDecayLR(min_lr, max_lr, decay_epoch), total_step, step_per_epoch)


@checked
def polynomial_decay_lr(
    learning_rate: float,
    end_learning_rate: float,
    total_step: StepCount,
    step_per_epoch: StepCount,
    decay_epoch: StepCount,
    power: float,
    update_decay_epoch: Restarts = False,
) -> list[float]:
    """A polynomial from `learning_rate` to `end_learning_rate` in `decay_epoch` epochs; see
    `PolynomialDecayLR`.

    Under `update_decay_epoch` the decay starts anew whenever it is over, over a larger multiple of
    `decay_epoch`.
    """
    schedule = PolynomialDecayLR(learning_rate, end_learning_rate, decay_epoch, power, update_decay_epoch)
    return _by_epoch(schedule, total_step, step_per_epoch)


@checked
def warmup_lr(
    learning_rate: float, total_step: StepCount, step_per_epoch: StepCount, warmup_epoch: StepCount
) -> list[float]:
    """From 0 to `learning_rate` along a line in `warmup_epoch` epochs, `total_step` steps; see
    `WarmUpLR`."""
    return _by_epoch(WarmUpLR(learning_rate, warmup_epoch), total_step, step_per_epoch)


def _by_epoch(schedule: LearningRateSchedule, total_step: StepCount, step_per_epoch: StepCount) -> list[float]:
    return [schedule(step // step_per_epoch) for step in range(total_step)]
