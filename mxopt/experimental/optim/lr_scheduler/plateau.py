"""A schedule that follows how training goes."""

from __future__ import annotations

import math
from typing import Any

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, for_each_group, groups_of, number, whole
from mxopt.options import number as any_number


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rates by `factor` when a number has not improved for more than `patience` steps.

    Parameters
    ----------
    optimizer
        See `LRScheduler`.
    mode : {'min', 'max'}
        Whether smaller or larger is better.
    factor : float
        Below 1.
    patience : int
        Steps without improvement that are put up with.
    threshold : float
        What counts as an improvement over the best so far.
    threshold_mode : {'rel', 'abs'}
        By that part of the best, or by that much.
    cooldown : int
        Steps after a reduction that don't count.
    min_lr : float, or a list with one for each group
        No rate is made smaller.
    eps : float
        A change of no more than this is left out.

    Raises
    ------
    ValueError
        `factor` is 1 or more, a mode is another, or there are more or fewer `min_lr` than groups.
    """

    by_group = ("min_lrs",)

    def __init__(
        self,
        optimizer: Any,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        self.factor = number("factor", factor)
        if self.factor >= 1:
            raise ArgumentError(f"factor must be below 1, got {factor}")
        if mode not in ("min", "max"):
            raise ArgumentError(f"mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ArgumentError(f"threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer = optimizer
        self.groups = groups_of(optimizer)
        self.mode = mode
        self.patience = whole("patience", patience)
        self.threshold = number("threshold", threshold)
        self.threshold_mode = threshold_mode
        self.cooldown = whole("cooldown", cooldown)
        self.min_lrs = [number("min_lr", x) for x in for_each_group("min_lr", min_lr, self.groups)]
        self.eps = number("eps", eps)
        for group in self.groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [float(group["initial_lr"]) for group in self.groups]
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._last_lr = self._rates()

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Takes the number of this step, and sets the rates.

        Raises ArgumentTypeError, and changes nothing, where it is no number; NaN is no improvement.
        """
        value = any_number("metrics", metrics, nan=True)
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
        """Whether steps don't count at present."""
        return self.cooldown_counter > 0

    def _reduced(self, rate: float, least: float) -> float:
        new = max(rate * self.factor, least)
        return new if rate - new > self.eps else rate

    def _better(self, value: float) -> bool:
        margin = self.threshold if self.threshold_mode == "abs" else self.threshold * self.best
        if math.isinf(self.best):
            margin = 0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin
