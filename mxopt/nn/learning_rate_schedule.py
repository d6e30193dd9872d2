"""Learning rates as functions of the step, after `mindspore.nn`'s `LearningRateSchedule` classes.

Everything is computed in double precision. Where MindSpore's formulas and its numbers differ, these are its numbers;
`docs/departures-mindspore.md` lists where.
"""

from __future__ import annotations

import math
from typing import Any

from mxopt.arguments import call_of
from mxopt.errors import ArgumentError, NotDefinedError
from mxopt.nn.checks import check_bools, check_floats, check_positive_ints


class LearningRateSchedule:
    """The base of all schedules. A subclass defines `construct(global_step)`.

    >>> class Halved(LearningRateSchedule):
    ...     def construct(self, global_step):
    ...         return 0.1 * 0.5 ** (global_step // 10)
    >>> Halved()(25)
    0.025
    """

    def construct(self, global_step: Any) -> Any:
        """The value at a step, counted from 0."""
        raise NotDefinedError(f"{type(self).__name__} must define construct(global_step)")

    def __call__(self, global_step: Any) -> Any:
        return self.construct(global_step)

    def __repr__(self) -> str:
        return call_of(self)


class _Decay(LearningRateSchedule):
    """What the exponential and inverse decays have in common."""

    def __init__(self, learning_rate: float, decay_rate: float, decay_steps: int, is_stair: bool = False) -> None:
        owner = type(self).__name__
        check_floats(owner, "(0, inf)", learning_rate=learning_rate, decay_rate=decay_rate)
        check_positive_ints(owner, decay_steps=decay_steps)
        check_bools(owner, is_stair=is_stair)
        self.learning_rate = learning_rate
        self.decay_rate = decay_rate
        self.decay_steps = decay_steps
        self.is_stair = is_stair

    def periods(self, global_step: float) -> float:
        """How many times `decay_steps` have passed; whole times under `is_stair`."""
        return global_step // self.decay_steps if self.is_stair else global_step / self.decay_steps


class ExponentialDecayLR(_Decay):
    """`learning_rate * decay_rate ** (step / decay_steps)`.

    Parameters
    ----------
    learning_rate, decay_rate : float
        Above 0.
    decay_steps : int
        1 or more.
    is_stair : bool
        Whether the exponent grows by whole numbers only.

    Raises
    ------
    TypeError, ValueError
        An argument is of another type, or out of range.

    >>> ExponentialDecayLR(0.1, 0.5, decay_steps=4)(8)
    0.025
    """

    def construct(self, global_step: Any) -> float:
        return float(self.learning_rate * self.decay_rate ** self.periods(global_step))


class NaturalExpDecayLR(_Decay):
    """`learning_rate * exp(-decay_rate * step)`; under `is_stair` the step goes up to multiples of `decay_steps` only.

    Without `is_stair`, `decay_steps` has no effect, as in MindSpore. Parameters and errors as in `ExponentialDecayLR`.
    """

    def construct(self, global_step: Any) -> float:
        step = self.periods(global_step) * self.decay_steps if self.is_stair else global_step
        return self.learning_rate * math.exp(-self.decay_rate * step)


class InverseDecayLR(_Decay):
    """`learning_rate / (1 + decay_rate * step / decay_steps)`. Parameters and errors as in `ExponentialDecayLR`."""

    def construct(self, global_step: Any) -> float:
        return float(self.learning_rate / (1 + self.decay_rate * self.periods(global_step)))


class CosineDecayLR(LearningRateSchedule):
    """Half a cosine from `max_lr` down to `min_lr` in `decay_steps` steps, then `min_lr`.

    Parameters
    ----------
    min_lr, max_lr : float
        0 or more, and more than that.
    decay_steps : int
        1 or more.

    Raises
    ------
    TypeError, ValueError
        An argument is of another type, or out of range.
    """

    def __init__(self, min_lr: float, max_lr: float, decay_steps: int) -> None:
        owner = type(self).__name__
        check_floats(owner, "[0, inf)", min_lr=min_lr)
        check_floats(owner, "(0, inf)", max_lr=max_lr)
        check_positive_ints(owner, decay_steps=decay_steps)
        if max_lr <= min_lr:
            raise ArgumentError(f"{owner}: max_lr must be greater than min_lr, got {max_lr} and {min_lr}")
        self.min_lr, self.max_lr, self.decay_steps = min_lr, max_lr, decay_steps

    def construct(self, global_step: Any) -> float:
        part = min(global_step, self.decay_steps) / self.decay_steps
        return self.min_lr + 0.5 * (self.max_lr - self.min_lr) * (1 + math.cos(math.pi * part))


class PolynomialDecayLR(LearningRateSchedule):
    """`(learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate`.

    Parameters
    ----------
    learning_rate : float
        Above 0.
    end_learning_rate : float
        0 or more; stays from `decay_steps` on.
    decay_steps : int
        1 or more.
    power : float
        Above 0.
    update_decay_steps : bool
        Whether, from `decay_steps` on, the decay starts anew, over as many steps as make up a multiple of it.

    Raises
    ------
    TypeError, ValueError
        An argument is of another type, or out of range.
    """

    def __init__(
        self,
        learning_rate: float,
        end_learning_rate: float,
        decay_steps: int,
        power: float,
        update_decay_steps: bool = False,
    ) -> None:
        owner = type(self).__name__
        check_floats(owner, "(0, inf)", learning_rate=learning_rate, power=power)
        check_floats(owner, "[0, inf)", end_learning_rate=end_learning_rate)
        check_positive_ints(owner, decay_steps=decay_steps)
        check_bools(owner, update_decay_steps=update_decay_steps)
        self.learning_rate, self.end_learning_rate = learning_rate, end_learning_rate
        self.decay_steps, self.power, self.update_decay_steps = decay_steps, power, update_decay_steps

    def construct(self, global_step: Any) -> float:
        steps = self.decay_steps
        if self.update_decay_steps:
            steps *= max(1, math.ceil(global_step / steps))
        left = 1 - min(global_step, steps) / steps
        return float((self.learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate)


class WarmUpLR(LearningRateSchedule):
    """From 0 to `learning_rate` along a line in `warmup_steps` steps, then `learning_rate`.

    Parameters
    ----------
    learning_rate : float
        0 or more.
    warmup_steps : int
        1 or more.

    Raises
    ------
    TypeError, ValueError
        An argument is of another type, or out of range.
    """

    def __init__(self, learning_rate: float, warmup_steps: int) -> None:
        owner = type(self).__name__
        check_floats(owner, "[0, inf)", learning_rate=learning_rate)
        check_positive_ints(owner, warmup_steps=warmup_steps)
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps

    def construct(self, global_step: Any) -> float:
        return float(self.learning_rate * min(global_step, self.warmup_steps) / self.warmup_steps)
