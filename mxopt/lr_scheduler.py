"""Learning rates as functions of the number of updates: `mxnet.lr_scheduler`.

A schedule is a function of `num_update` and of the `base_lr` that was last assigned: it can be
asked for any update, in any order, and resumed anywhere. For a growing count it gives MXNet's
numbers, even if `base_lr` is assigned during training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np

from mxopt.arguments import NamedArguments, call_of
from mxopt.caller import warn
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError
from mxopt.options import Exact, Option, number, plain
from mxopt.registry import Registry

__all__ = ["CosineScheduler", "FactorScheduler", "LRScheduler", "MultiFactorScheduler", "PolyScheduler"]


def __dir__() -> list[str]:
    return __all__


Rate = Annotated[float, Option("", "the rate to start from after the warm-up", kept="warmup_final_lr")]
WarmupSteps = Annotated[int, Exact("[0, inf)", "the number of updates of the warm-up; 0 for none")]
BeginRate = Annotated[float, Option("", "the rate at the start of the warm-up")]
Mode = Annotated[
    Literal["linear", "constant"],
    Option(
        "", "rise in equal steps from `warmup_begin_lr` to the `base_lr` of construction, or stay at `warmup_begin_lr`"
    ),
]
Factor = Annotated[float, Option("(-inf, 1]", "what the rate is multiplied by")]
LastUpdate = Annotated[int, Exact("[1, inf)", "the update at which `final_lr` is reached, the warm-up counted in")]
FinalRate = Annotated[float, Option("", "where the rate falls to, from the `base_lr` of construction")]


def warn_of_climbing(rate: float) -> None:
    """Warns if a learning rate is negative."""
    if rate < 0:
        warn(f"a learning rate of {rate} climbs the gradient: give a positive one to descend")


class LRScheduler(NamedArguments):
    """The base of schedules: a warm-up, then the rate of `after_warmup`.

    Attributes
    ----------
    assigned : (float, int)
        The value that `base_lr` was last set to, and the largest count after the warm-up that the
        schedule had been asked for by then. Together with the arguments this is the schedule's
        whole state, which is saved and sent to servers.

    Raises
    ------
    ValueError
        `warmup_begin_lr` is above `base_lr`, `warmup_steps` is negative, or the mode is unknown.
    """

    assigned: tuple[float, int] = (0.01, 0)
    _latest = 0  # the largest count asked for after the warm-up
    registry: ClassVar[Registry] = Registry("schedule", "derive it from LRScheduler")  # all subclasses

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        LRScheduler.registry.add(cls.__name__, cls)

    def __init__(
        self,
        base_lr: Rate = 0.01,
        warmup_steps: WarmupSteps = 0,
        warmup_begin_lr: BeginRate = 0,
        warmup_mode: Mode = "linear",
    ) -> None:
        if not warmup_begin_lr <= base_lr:
            raise ArgumentError(f"warmup_begin_lr {warmup_begin_lr} must not be above base_lr {base_lr}")
        self._latest = 0
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.warmup_final_lr = base_lr
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_mode = warmup_mode

    def __call__(self, num_update: int) -> float:
        """The rate of update `num_update`, the largest number of updates of any weight."""
        try:
            usable = num_update >= 0
        except TypeError:
            usable = False
        if not usable:
            raise ArgumentError(f"{type(self).__name__}: num_update must be 0 or more, got {num_update!r}")
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        self.reach(num_update)
        return self.after_warmup(num_update)

    def reach(self, num_update: int) -> None:
        """Notes that training has reached this update, as asking for its rate does."""
        if num_update > self._latest and num_update >= self.warmup_steps:
            self._latest = num_update

    @property
    def base_lr(self) -> float:
        """The rate to continue from. As in MXNet it follows the rate in the schedules of this
        module, so that `schedule.base_lr *= 0.1` changes the present rate. An assigned value counts
        from the present update on.
        """
        return self._become(self._now)

    @base_lr.setter
    def base_lr(self, rate: float) -> None:
        number("base_lr", rate)
        warn_of_climbing(rate)
        self.assigned = (plain(rate), self._now)

    @property
    def _now(self) -> int:
        """The largest count that the schedule has reached, or had when it was saved."""
        return max(self._latest, self.assigned[1])

    def _become(self, num_update: int) -> float:
        """The value of `base_lr` at an update, starting from the assigned one."""
        return self.assigned[0]

    def get_warmup_lr(self, num_update: int) -> float:
        """The rate of an update within the warm-up."""
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        rise = (self.warmup_final_lr - self.warmup_begin_lr) * num_update / self.warmup_steps
        return self.warmup_begin_lr + rise

    def after_warmup(self, num_update: int) -> float:
        """The rate of an update after the warm-up. Subclasses define this (or, as in MXNet,
        `__call__`)."""
        raise NotDefinedError(f"{type(self).__name__} must define after_warmup or __call__")

    def __repr__(self) -> str:
        rate, since = self.assigned
        made = call_of(self)
        return f"<{made}, base_lr set to {rate} at update {since}>" if since else made


class FactorScheduler(LRScheduler):
    """Multiplies the rate by `factor` after every `step` updates, down to `stop_factor_lr`.

    >>> schedule = FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    >>> [schedule(n) for n in range(7)]
    [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    assigned: tuple[float, int]

    def __init__(
        self,
        step: Annotated[int, Option("[1, inf)", "the rate changes at updates `step` + 1, 2 `step` + 1, and so on")],
        factor: Factor = 1,
        stop_factor_lr: Annotated[float, Option("", "from the first change on, the rate is at least this")] = 1e-8,
        base_lr: Rate = 0.01,
        warmup_steps: WarmupSteps = 0,
        warmup_begin_lr: BeginRate = 0,
        warmup_mode: Mode = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.step = step
        self.factor = factor
        self.stop_factor_lr = stop_factor_lr
        self._known = (self.assigned, 0, base_lr)  # a number of changes and the rate after them, to go on from

    def after_warmup(self, num_update: int) -> float:
        return self._become(num_update)

    @property
    def count(self) -> int:
        """The update after which the rate last changed, as in MXNet. If it is assigned, changes are
        counted from there."""
        return self.step * self._changes(self._now)

    @count.setter
    def count(self, count: int) -> None:
        self.assigned, self._latest = (self.base_lr, count + 1), count + 1

    def _changes(self, num_update: int) -> int:
        return max(0, math.ceil(num_update / self.step) - 1)

    def _become(self, num_update: int) -> float:
        changes = self._changes(num_update) - self._changes(self.assigned[1])
        assigned, done, rate = self._known
        if assigned != self.assigned or done > changes:
            done, rate = 0, self.assigned[0]
        for _ in range(changes - done):
            lower = max(rate * self.factor, self.stop_factor_lr)
            if lower == rate:
                break
            rate = lower
        self._known = (self.assigned, max(0, changes), rate)
        return rate


class MultiFactorScheduler(LRScheduler):
    """Multiplies the rate by `factor` after each of the updates in `step`."""

    def __init__(
        self,
        step: Annotated[Sequence[int], Option("", "ascending; the rate changes at the update after each of them")],
        factor: Factor = 1,
        base_lr: Rate = 0.01,
        warmup_steps: WarmupSteps = 0,
        warmup_begin_lr: BeginRate = 0,
        warmup_mode: Mode = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not isinstance(step, Sequence | np.ndarray) or not getattr(step, "ndim", 1):
            raise ArgumentTypeError(f"step must be a list of whole numbers, got {step!r}")
        step = list(step)
        for each in step:
            number(f"{type(self).__name__}: step", each)
        if not step or step[0] < 1 or any(b <= a for a, b in pairwise(step)):
            raise ArgumentError(f"step must be an ascending list of whole numbers of 1 or more, got {step}")
        self.step = step
        self.factor = factor

    def after_warmup(self, num_update: int) -> float:
        return self._become(num_update)

    def _become(self, num_update: int) -> float:
        rate, since = self.assigned
        for _ in filter(lambda step: since <= step < num_update, self.step):
            rate *= self.factor
        return rate


class _Annealing(LRScheduler):
    """From the `base_lr` of construction down to `final_lr` at `max_update`, warm-up included."""

    def __init__(
        self,
        max_update: LastUpdate,
        base_lr: Rate = 0.01,
        final_lr: FinalRate = 0,
        warmup_steps: WarmupSteps = 0,
        warmup_begin_lr: BeginRate = 0,
        warmup_mode: Mode = "linear",
    ) -> None:
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if warmup_steps > max_update:
            raise ArgumentError(
                f"max_update counts the warm-up in: {max_update} is below warmup_steps {warmup_steps}; for {max_update}"
                f" updates after the warm-up give max_update={max_update + warmup_steps}"
            )
        self.base_lr_orig = base_lr
        self.max_update = max_update
        self.final_lr = final_lr
        self.max_steps: int = max_update - warmup_steps

    def after_warmup(self, num_update: int) -> float:
        rate, since = self.assigned
        if since >= self.max_update:  # a rate that is assigned after the end stays
            return rate
        if num_update > self.max_update or self.max_steps <= 0:
            return self.final_lr
        return self.final_lr + (self.base_lr_orig - self.final_lr) * self.share(num_update - self.warmup_steps)

    def _become(self, num_update: int) -> float:
        rate, since = self.assigned
        return self.after_warmup(num_update) if num_update > since else rate

    def share(self, steps: int) -> float:
        """The part of the way that is left `steps` updates after the warm-up, from 1 to 0."""
        raise NotDefinedError


class PolyScheduler(_Annealing):
    """Falls to `final_lr` as a power of the part of the way that is left, whatever is assigned
    meanwhile."""

    def __init__(
        self,
        max_update: LastUpdate,
        base_lr: Rate = 0.01,
        pwr: Annotated[float, Option("[0, inf)", "the power", kept="power")] = 2,
        final_lr: FinalRate = 0,
        warmup_steps: WarmupSteps = 0,
        warmup_begin_lr: BeginRate = 0,
        warmup_mode: Mode = "linear",
    ) -> None:
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.power = pwr

    def share(self, steps: int) -> float:
        return math.pow(1 - steps / self.max_steps, self.power)


class CosineScheduler(_Annealing):
    """Falls to `final_lr` along half a cosine, whatever is assigned meanwhile."""

    def share(self, steps: int) -> float:
        return (1 + math.cos(math.pi * steps / self.max_steps)) / 2
