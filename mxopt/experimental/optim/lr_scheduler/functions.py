"""Schedules given by functions of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from mxopt.errors import ArgumentTypeError
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, groups_of
from mxopt.experimental.optim.lr_scheduler.options import Functions, LastEpoch, Scheduled, for_each_group
from mxopt.options import one_number

Factor = Callable[[Any], float]


class _OfFunctions(LRScheduler):
    """What has a function for each group."""

    by_group: ClassVar[tuple[str, ...]] = ("lr_lambdas",)

    def __init__(self, optimizer: Scheduled, lr_lambda: Functions, last_epoch: LastEpoch = -1) -> None:
        self.lr_lambdas: list[Factor] = for_each_group("lr_lambda", lr_lambda, groups_of(optimizer))
        for function in self.lr_lambdas:
            if not callable(function):
                raise ArgumentTypeError(f"lr_lambda must be a function of the step, got {function!r}")
        super().__init__(optimizer, last_epoch)

    def _times(self, rates: list[float]) -> list[float]:
        """Rates times the functions of the step."""
        found = []
        for k, (rate, function) in enumerate(zip(rates, self.lr_lambdas, strict=True)):
            what = f"{type(self).__name__}: what lr_lambda gives for group {k} at step {self.last_epoch}"
            found.append(rate * one_number(what, function(self.last_epoch)))
        return found


class LambdaLR(_OfFunctions):
    """The initial rates times a function of the step. Whatever is set from outside lasts until the
    next step.

    Raises ValueError if there are more or fewer functions than groups, TypeError where one is no
    function.
    """

    def get_lr(self) -> list[float]:
        return self._times(self.base_lrs)


class MultiplicativeLR(_OfFunctions):
    """Multiplies the rates at each step by a function of the step.

    Raises ValueError if there are more or fewer functions than groups, TypeError where one is no
    function.
    """

    def get_lr(self) -> list[float]:
        if self.last_epoch <= 0:
            return self._rates()
        return self._times(self._rates())
