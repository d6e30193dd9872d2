"""Schedules that are a factor times the initial rate: a closed formula of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Annotated

import numpy as np

from mxopt.errors import ArgumentTypeError, NotDefinedError
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler
from mxopt.experimental.optim.lr_scheduler.options import Floor, Gamma, LastEpoch, Scheduled, Share, Whole
from mxopt.options import Declared, Exact, Option, StepCount

Number = Annotated[float, Option("", "what the rates are multiplied by")]
Power = Annotated[float, Exact("[0, inf)", "of the part of the way that is left")]
Milestones = Annotated[list[int], Option("", "steps, in any order")]
MILESTONE = Declared(Annotated[int, Exact()])


class FactorLR(LRScheduler):
    """Schedules whose rate at step t is `floor + (initial rate - floor) * factor(t)`.

    So long as nobody else touches a rate, this formula gives it: nothing adds up. A rate that was
    changed from outside is moved on from where it is, `factor(t) / factor(t - 1)` of the way, as
    chained schedules need it.
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
        # A rate that another schedule brought below the floor would move away from it, at last
        # below 0.
        return max(0.0, self.floor + (rate - self.floor) * (now / before))


class StepLR(FactorLR):
    """Multiplies the rates by `gamma` every `step_size` steps."""

    def __init__(
        self, optimizer: Scheduled, step_size: StepCount, gamma: Gamma = 0.1, last_epoch: LastEpoch = -1
    ) -> None:
        self.step_size: int = int(step_size)
        self.gamma: float = float(gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma ** (epoch // self.step_size))


class MultiStepLR(FactorLR):
    """Multiplies the rates by `gamma` at each of the `milestones`, twice where one comes twice."""

    def __init__(
        self, optimizer: Scheduled, milestones: Milestones, gamma: Number = 0.1, last_epoch: LastEpoch = -1
    ) -> None:
        if not isinstance(milestones, list | np.ndarray) or not getattr(milestones, "ndim", 1):
            raise ArgumentTypeError(f"milestones must be a list of int, got {milestones!r}")
        self.milestones: list[int] = sorted(int(MILESTONE.check("a milestone", m)) for m in milestones)
        self.gamma: float = float(gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma ** bisect_right(self.milestones, epoch))


class ExponentialLR(FactorLR):
    """Multiplies the rates by `gamma` at each step."""

    def __init__(self, optimizer: Scheduled, gamma: Gamma, last_epoch: LastEpoch = -1) -> None:
        self.gamma: float = float(gamma)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(self.gamma**epoch)


class ConstantLR(FactorLR):
    """The rates times `factor` for `total_iters` steps, then the rates.

    If `total_iters` is 0 or below the factor stays, as in MindSpore, until a step is set by its
    number.
    """

    def __init__(
        self, optimizer: Scheduled, factor: Share = 1 / 3, total_iters: Whole = 5, last_epoch: LastEpoch = -1
    ) -> None:
        self.start_factor: float = float(factor)
        self.total_iters: int = int(total_iters)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return self.start_factor if epoch < self.total_iters else 1.0

    def get_lr(self) -> list[float]:
        if self.total_iters > 0:
            return super().get_lr()
        share = self.start_factor if self.last_epoch == 0 else 1.0
        return [float(group["lr"]) * share for group in self.groups]


class LinearLR(FactorLR):
    """The rates times a factor that goes from `start_factor` to `end_factor` in `total_iters` equal
    steps."""

    def __init__(
        self,
        optimizer: Scheduled,
        start_factor: Annotated[
            float, Option("(0, 1]", "the factor at first; 0 would be one that none leads on from")
        ] = 1 / 3,
        end_factor: Annotated[float, Option("[0, 1]", "the factor at last")] = 1.0,
        total_iters: StepCount = 5,
        last_epoch: LastEpoch = -1,
    ) -> None:
        self.start_factor: float = float(start_factor)
        self.end_factor: float = float(end_factor)
        self.total_iters: int = int(total_iters)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        if epoch >= self.total_iters:
            return self.end_factor
        return self.start_factor + (self.end_factor - self.start_factor) * (epoch / self.total_iters)


class PolynomialLR(FactorLR):
    """Falls to 0 in `total_iters` steps, as a power of the part of the way that is left."""

    def __init__(
        self, optimizer: Scheduled, total_iters: StepCount = 5, power: Power = 1.0, last_epoch: LastEpoch = -1
    ) -> None:
        self.total_iters: int = int(total_iters)
        self.power: float = float(power)
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float((1 - min(epoch, self.total_iters) / self.total_iters) ** self.power)


class CosineAnnealingLR(FactorLR):
    """Along a cosine from the initial rates down to `eta_min` at step `T_max`, up again to `2 *
    T_max`, and so on."""

    floor: float

    def __init__(
        self,
        optimizer: Scheduled,
        T_max: StepCount,  # noqa: N803
        eta_min: Floor = 0.0,
        last_epoch: LastEpoch = -1,
    ) -> None:
        self.T_max: int = int(T_max)
        self.eta_min: float = float(eta_min)
        self.floor = self.eta_min
        super().__init__(optimizer, last_epoch)

    def factor(self, epoch: float) -> float:
        return float(1 + math.cos(math.pi * epoch / self.T_max)) / 2
