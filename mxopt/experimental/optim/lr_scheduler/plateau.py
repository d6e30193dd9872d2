"""A schedule that follows a measure of the training."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, ParameterGroup, groups_of
from mxopt.experimental.optim.lr_scheduler.options import Scheduled, for_each_group
from mxopt.options import Exact, Option, number, one_number
from mxopt.typing import AnyArray


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rates by `factor` when a number has not improved for more than `patience`
    steps.

    Raises
    ------
    ValueError
        `factor` is 1 or more, a mode is unknown, or there are more or fewer `min_lr` than groups.
    """

    groups: list[ParameterGroup]
    last_epoch: float
    by_group: ClassVar[tuple[str, ...]] = ("min_lrs",)

    def __init__(
        self,
        optimizer: Scheduled,
        mode: Annotated[Literal["min", "max"], Option("", "whether smaller or larger is better")] = "min",
        factor: Annotated[float, Option("(-inf, 1)", "what the rates are multiplied by")] = 0.1,
        patience: Annotated[int, Exact("", "steps without improvement that are tolerated")] = 10,
        threshold: Annotated[float, Option("", "what counts as an improvement over the best so far")] = 1e-4,
        threshold_mode: Annotated[
            Literal["rel", "abs"], Option("", "by that part of the best, or by that much")
        ] = "rel",
        cooldown: Annotated[int, Exact("", "steps after a reduction that don't count")] = 0,
        min_lr: Annotated[
            float | list[float], Option("", "no rate is made smaller; a number, or one for each group")
        ] = 0,
        eps: Annotated[float, Option("", "a change of no more than this is left out")] = 1e-8,
    ) -> None:
        self.optimizer = optimizer
        self.factor: float = float(factor)
        self.groups = groups_of(optimizer)
        self.mode = mode
        self.patience: int = int(patience)
        self.threshold: float = float(threshold)
        self.threshold_mode = threshold_mode
        self.cooldown: int = int(cooldown)
        self.min_lrs: list[float] = [
            number("ReduceLROnPlateau: min_lr", x) for x in for_each_group("min_lr", min_lr, self.groups)
        ]
        self.eps: float = float(eps)
        self.base_lrs: list[float] = [self._initial(group) for group in self.groups]
        self.last_epoch = 0
        self.best: float = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs: int = 0
        self.cooldown_counter: int = 0
        self._last_lr = self._rates()

    def _initial(self, group: ParameterGroup) -> float:
        """As in MindSpore and PyTorch it notes none: a schedule that comes later begins with the
        rate at that time."""
        return float(group.get("initial_lr", group["lr"]))

    def step(self, metrics: float | AnyArray) -> None:  # type: ignore[override]
        """Takes this step's measure, a number or an array of one element, and sets the rates.

        NaN is no improvement. Raises ArgumentTypeError, and changes nothing, for anything else.
        """
        value = one_number("metrics", metrics, nan=True)
        with self.as_one():
            self.last_epoch += 1
            if self._better(value):
                self.best = value
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.in_cooldown():
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            if self.num_bad_epochs > self.patience:
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
                self._set([self._reduced(rate, least) for rate, least in zip(self._rates(), self.min_lrs, strict=True)])
            self._last_lr = self._rates()

    def in_cooldown(self) -> bool:
        """Whether steps don't count now."""
        return self.cooldown_counter > 0

    def _reduced(self, rate: float, least: float) -> float:
        new = max(rate * self.factor, least)
        return new if rate - new > self.eps else rate

    def _better(self, value: float) -> bool:
        margin = self.threshold if self.threshold_mode == "abs" else self.threshold * self.best
        if math.isinf(self.best):
            margin = 0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin
