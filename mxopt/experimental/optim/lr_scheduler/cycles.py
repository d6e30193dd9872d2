"""Schedules that begin again and again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, Unchanged, groups_of
from mxopt.experimental.optim.lr_scheduler.options import Floor, LastEpoch, Rates, Scheduled, for_each_group
from mxopt.options import Exact, Option, StepCount, number, one_number


class CyclicLR(LRScheduler):
    """Up in equal steps from `base_lr` to `max_lr`, down again, and so on,
    https://arxiv.org/abs/1506.01186.

    Raises
    ------
    ValueError
        A mode is another, or there are more or fewer rates than groups.
    """

    by_group: ClassVar[tuple[str, ...]] = ("lowest_lrs", "max_lrs")

    def __init__(
        self,
        optimizer: Scheduled,
        base_lr: Rates,
        max_lr: Rates,
        step_size_up: StepCount = 2000,
        step_size_down: Annotated[int | None, Exact("[1, inf)", "of the way down; None: as many as up")] = None,
        mode: Annotated[
            str,
            Option(
                "",
                "'triangular': all peaks alike; 'triangular2': each half as high over `base_lr` as the one before;"
                " 'exp_range': times `gamma ** step`",
            ),
        ] = "triangular",
        gamma: Annotated[float, Option("", "for 'exp_range'")] = 1.0,
        scale_fn: Annotated[
            Callable[[Any], float] | None,
            Option("", "instead of a mode: takes the number of the cycle, from 1, or of the step, from 0"),
        ] = None,
        scale_mode: Annotated[Literal["cycle", "iterations"], Option("", "which of them it takes")] = "cycle",
        last_epoch: LastEpoch = -1,
    ) -> None:
        groups = groups_of(optimizer)
        lowest = [number("base_lr", x) for x in for_each_group("base_lr", base_lr, groups)]
        self.max_lrs: list[float] = [number("max_lr", x) for x in for_each_group("max_lr", max_lr, groups)]
        self.step_size_up: int = int(step_size_up)
        self.step_size_down: int = int(step_size_up if step_size_down is None else step_size_down)
        if scale_fn is None and not (isinstance(mode, str) and mode in ("triangular", "triangular2", "exp_range")):
            raise ArgumentError(f"mode must be 'triangular', 'triangular2' or 'exp_range', got {mode!r}")
        if scale_fn is not None and not callable(scale_fn):
            raise ArgumentTypeError(f"scale_fn must be a function, got {scale_fn!r}")
        self.mode = mode
        self.gamma: float = float(gamma)
        self.scale_mode = scale_mode
        self.scale_fn = scale_fn
        self.lowest_lrs = lowest
        with Unchanged(groups):
            if last_epoch == -1:
                for group, rate in zip(groups, lowest, strict=True):
                    group["lr"] = rate
            super().__init__(optimizer, last_epoch)
            # Not from `base_lr` where other initial rates were noted, by a schedule before this one
            # or in the run that goes on.
            self._set(self._between(self.base_lrs))
        self.base_lrs = lowest

    def get_lr(self) -> list[float]:
        return self._between(self.lowest_lrs)

    def _between(self, lowest: list[float]) -> list[float]:
        """The rates of step `last_epoch`, in a cycle from the rates `lowest`."""
        length = self.step_size_up + self.step_size_down
        cycle = math.floor(1 + self.last_epoch / length)
        place = 1 + self.last_epoch / length - cycle
        rise = self.step_size_up / length
        height = place / rise if place <= rise else (place - 1) / (rise - 1)
        height *= self._scale(cycle)
        return [low + (high - low) * height for low, high in zip(lowest, self.max_lrs, strict=True)]

    def _scale(self, cycle: int) -> float:
        if self.scale_fn is not None:
            of = cycle if self.scale_mode == "cycle" else self.last_epoch
            return one_number(f"CyclicLR: what scale_fn gives for {of}", self.scale_fn(of))
        if self.mode == "triangular2":
            return 0.5 ** (cycle - 1)
        return float(self.gamma**self.last_epoch) if self.mode == "exp_range" else 1.0


class CosineAnnealingWarmRestarts(LRScheduler):
    """Along half a cosine from the initial rates down to `eta_min`, again and again,
    https://arxiv.org/abs/1608.03983.
    """

    T_i: int
    last_epoch: float

    def __init__(
        self,
        optimizer: Scheduled,
        T_0: StepCount,  # noqa: N803
        T_mult: Annotated[  # noqa: N803
            int, Exact("[1, inf)", "how many times as long as the one before each cycle is")
        ] = 1,
        eta_min: Floor = 0,
        last_epoch: LastEpoch = -1,
    ) -> None:
        self.T_0 = self.T_i = int(T_0)
        self.T_mult: int = int(T_mult)
        self.eta_min: float = float(eta_min)
        self.T_cur: float = -1
        if last_epoch >= 0:
            self._place(last_epoch)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Sets the rates of the next step, or those of step `epoch`, which may be within an epoch:
        a fraction.

        Raises ArgumentError for a negative `epoch`.
        """
        with self.as_one():
            if epoch is None and self.last_epoch >= 0:
                self.last_epoch += 1
                self.T_cur += 1
                if self.T_cur >= self.T_i:
                    self.T_cur -= self.T_i
                    self.T_i *= self.T_mult
            else:
                self._place(0 if epoch is None else number("epoch", epoch))
            self._set(self.get_lr())

    def _place(self, epoch: float) -> None:
        """Finds the cycle that `epoch` is in."""
        if epoch < 0:
            raise ArgumentError(f"epoch must not be negative, got {epoch}")
        start, length = 0, self.T_0
        if self.T_mult == 1:
            start = math.floor(epoch / length) * length
        while self.T_mult > 1 and epoch >= start + length:
            start += length
            length *= self.T_mult
        self.T_cur, self.T_i, self.last_epoch = epoch - start, length, math.floor(epoch)
