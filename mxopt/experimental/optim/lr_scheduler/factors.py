"""Schedules that are a factor times the initial rate: a closed formula of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, at_least, number, real, share, whole


class FactorLR(LRScheduler):
    """Schedules whose rate at step t is `floor + (initial rate - floor) * factor(t)`.

    So long as nobody else touches a rate, this formula gives it: nothing adds up. A rate that was changed from outside
    is moved on from where it is, `factor(t) / factor(t - 1)` of the way, as chained schedules need it.
    """

    floor: float = 0.0

    def factor(self, epoch: float) -> float:
        """The factor at step `epoch`, from 0."""
        raise NotDefinedError(f"{type(self).__name__} must define factor")

    def closed_form(self, epoch: float) -> list[float]:
        return [self._at(base, self.factor(epoch)) for base in self.base_lrs]

    def get_lr(self) -> list[float]:
        now, before = self.factor(self.last_epoch), self.factor(self.last_epoch - 1) if self.last_epoch > 0 else 1.0
        return [
            self._moved(base, float(group["lr"]), before, now)
            for base, group in zip(self.base_lrs, self.groups, strict=True)
        ]

    def _at(self, base: float, factor: float) -> float:
        return self.floor + (base - self.floor) * factor

    def _moved(self, base: float, rate: float, before: float, now: float) -> float:
        if rate == self._at(base, before):
            return self._at(base, now)
        if now == before:
            return rate
        if before == 0:  # a changed rate keeps its distance
            return rate + (base - self.floor) * now
        # A rate that another schedule brought below the floor would move away from it, at last below 0.
        return max(0.0, self.floor + (rate - self.floor) * (now / before))


class StepLR(FactorLR):
    """Multiplies the rates by `gamma` every `step_size` steps.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    step_size : int
        1 or more.
    gamma : float

    Raises
    ------
    TypeError
        `step_size` is no int, `gamma` no float.
    """

    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = at_least("step_size", step_size, 1)
        self.gamma = real("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma ** (epoch // self.step_size))


class MultiStepLR(FactorLR):
    """Multiplies the rates by `gamma` at each of the `milestones`, twice at one that comes twice.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    milestones : list of int
        Steps, in any order.
    gamma : float or int

    Raises
    ------
    TypeError
        `milestones` is no list of ints, `gamma` no number.
    """

    def __init__(self, optimizer: Any, milestones: list[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        if not isinstance(milestones, list | np.ndarray):
            raise ArgumentTypeError(f"milestones must be a list of int, got {milestones!r}")
        self.milestones = sorted(whole("a milestone", m) for m in milestones)
        self.gamma = number("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma ** bisect_right(self.milestones, epoch))


class ExponentialLR(FactorLR):
    """Multiplies the rates by `gamma` at each step.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    gamma : float

    Raises
    ------
    TypeError
        `gamma` is no float.
    """

    def __init__(self, optimizer: Any, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = real("gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma**epoch)


class ConstantLR(FactorLR):
    """The rates times `factor` for `total_iters` steps, then the rates.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    factor : float
        In [0, 1].
    total_iters : int

    Raises
    ------
    ValueError
        `factor` is not in [0, 1].
    TypeError
        `total_iters` is no int.
    """

    def __init__(self, optimizer: Any, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        self.start_factor = share("factor", factor)
        self.total_iters = whole("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return self.start_factor if epoch < self.total_iters else 1.0


class LinearLR(FactorLR):
    """The rates times a factor that goes from `start_factor` to `end_factor` in `total_iters` equal steps.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    start_factor : float
        In (0, 1].
    end_factor : float
        In [0, 1].
    total_iters : int

    Raises
    ------
    ValueError
        A factor is out of its range.
    TypeError
        `total_iters` is no int.
    """

    def __init__(
        self,
        optimizer: Any,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = share("start_factor", start_factor)
        if self.start_factor == 0:
            raise ArgumentError("start_factor must be above 0: no factor would lead on from there")
        self.end_factor = share("end_factor", end_factor)
        self.total_iters = at_least("total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        if epoch >= self.total_iters:
            return self.end_factor
        return self.start_factor + (self.end_factor - self.start_factor) * (epoch / self.total_iters)


class PolynomialLR(FactorLR):
    """Falls to 0 in `total_iters` steps, as a power of the part of the way that is left.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    total_iters : int
    power : float
        0 or more.

    Raises
    ------
    ValueError
        `power` is negative.
    TypeError
        `total_iters` is no int, `power` no float.
    """

    def __init__(self, optimizer: Any, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = at_least("total_iters", total_iters, 1)
        self.power = real("power", power)
        if self.power < 0:
            raise ArgumentError(f"power must not be negative, got {power}")
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float((1 - min(epoch, self.total_iters) / self.total_iters) ** self.power)


class CosineAnnealingLR(FactorLR):
    """Along a cosine from the initial rates down to `eta_min` at step `T_max`, up again to `2 * T_max`, and so on.

    Parameters
    ----------
    optimizer, last_epoch
        See `LRScheduler`.
    T_max : int
        1 or more.
    eta_min : float

    Raises
    ------
    TypeError
        `T_max` is no int, `eta_min` no number.
    """

    def __init__(self, optimizer: Any, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:  # noqa: N803
        self.T_max = at_least("T_max", T_max, 1)
        self.floor = self.eta_min = number("eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(1 + math.cos(math.pi * epoch / self.T_max)) / 2
