"""Learning rates as functions of the step, after `mindspore.nn`'s `LearningRateSchedule` classes.

Everything is computed in double precision. Where MindSpore's results differ from its formulas,
these are its results; `docs/departures-mindspore.md` lists them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from mxopt.arguments import NamedArguments, call_of
from mxopt.errors import ArgumentError, NotDefinedError
from mxopt.options import Exact, StepCount

Above = Annotated[float, Exact("(0, inf)", "where the rate starts")]
Least = Annotated[float, Exact("[0, inf)", "where the rate ends")]


class LearningRateSchedule(NamedArguments):
    """The base of all schedules. A subclass defines `construct(global_step)`.

    >>> class Halved(LearningRateSchedule):
    ...     def construct(self, global_step):
    ...         return 0.1 * 0.5 ** (global_step // 10)
    >>> Halved()(25)
    0.025
    """

    def construct(self, global_step: int) -> Any:
        """The value at a step, counted from 0."""
        raise NotDefinedError(f"{type(self).__name__} must define construct(global_step)")

    def __call__(self, global_step: int) -> Any:
        return self.construct(global_step)

    def __repr__(self) -> str:
        return call_of(self)


class _Decay(LearningRateSchedule):
    """The base of the exponential and inverse decays."""

    def __init__(
        self,
        learning_rate: Above,
        decay_rate: Annotated[float, Exact("(0, inf)", "how fast it falls")],
        decay_steps: StepCount,
        is_stair: Annotated[bool, Exact("", "whether the exponent grows by whole numbers only")] = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.decay_rate = decay_rate
        self.decay_steps = decay_steps
        self.is_stair = is_stair

    def periods(self, global_step: float) -> float:
        """How often `decay_steps` have passed; with `is_stair` a whole number."""
        return global_step // self.decay_steps if self.is_stair else global_step / self.decay_steps


class ExponentialDecayLR(_Decay):
    """`learning_rate * decay_rate ** (step / decay_steps)`.

    >>> ExponentialDecayLR(0.1, 0.5, decay_steps=4)(8)
    0.025
    """

    def construct(self, global_step: int) -> float:
        return float(self.learning_rate * self.decay_rate ** self.periods(global_step))


class NaturalExpDecayLR(_Decay):
    """`learning_rate * exp(-decay_rate * step)`; with `is_stair` the step is rounded down to a
    multiple of `decay_steps`.

    Without `is_stair`, `decay_steps` has no effect, as in MindSpore.
    """

    def construct(self, global_step: int) -> float:
        step = self.periods(global_step) * self.decay_steps if self.is_stair else global_step
        return self.learning_rate * math.exp(-self.decay_rate * step)


class InverseDecayLR(_Decay):
    """`learning_rate / (1 + decay_rate * step / decay_steps)`."""

    def construct(self, global_step: int) -> float:
        return float(self.learning_rate / (1 + self.decay_rate * self.periods(global_step)))


class CosineDecayLR(LearningRateSchedule):
    """Half a cosine from `max_lr` down to `min_lr` in `decay_steps` steps, then `min_lr`."""

    def __init__(self, min_lr: Least, max_lr: Above, decay_steps: StepCount) -> None:
        if max_lr <= min_lr:
            raise ArgumentError(f"{type(self).__name__}: max_lr must be greater than min_lr, got {max_lr} and {min_lr}")
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.decay_steps = decay_steps

    def construct(self, global_step: int) -> float:
        part = min(global_step, self.decay_steps) / self.decay_steps
        return self.min_lr + 0.5 * (self.max_lr - self.min_lr) * (1 + math.cos(math.pi * part))


class PolynomialDecayLR(LearningRateSchedule):
    """`(learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power +
    end_learning_rate`."""

    def __init__(
        self,
        learning_rate: Above,
        end_learning_rate: Least,
        decay_steps: StepCount,
        power: Annotated[float, Exact("(0, inf)", "of the part of the way that is left")],
        update_decay_steps: Annotated[
            bool,
            Exact(
                "",
                "whether, from `decay_steps` on, the decay starts anew, over as many steps as make up a multiple of it",
            ),
        ] = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.end_learning_rate = end_learning_rate
        self.decay_steps = decay_steps
        self.power = power
        self.update_decay_steps = update_decay_steps

    def construct(self, global_step: int) -> float:
        steps = self.decay_steps
        if self.update_decay_steps:
            steps *= max(1, math.ceil(global_step / steps))
        left = 1 - min(global_step, steps) / steps
        return float((self.learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate)


class WarmUpLR(LearningRateSchedule):
    """From 0 to `learning_rate` along a line in `warmup_steps` steps, then `learning_rate`."""

    def __init__(self, learning_rate: Least, warmup_steps: StepCount) -> None:
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def construct(self, global_step: int) -> float:
        return float(self.learning_rate * min(global_step, self.warmup_steps) / self.warmup_steps)
