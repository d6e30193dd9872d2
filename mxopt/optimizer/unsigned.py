"""Optimizers whose learning rate can't be negative: they divide by it, or use it as a variance."""

from __future__ import annotations

from typing import Any

from mxopt.errors import ArgumentError
from mxopt.optimizer.base import Index
from mxopt.optimizer.options import OptimizerOptions, Rate
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.options import Unpack, number


class UnsignedRate(RuleOptimizer):
    """Refuses a negative learning rate when it is set; `scalars` refuses one of a schedule, at the
    update."""

    def __init__(self, learning_rate: Rate = None, **base: Unpack[OptimizerOptions]) -> None:
        super().__init__(learning_rate=self._unsigned(learning_rate), **base)

    def set_learning_rate(self, lr: float) -> None:
        number("learning_rate", lr)
        super().set_learning_rate(self._unsigned(lr))

    def _unsigned(self, lr: Any, index: Index | None = None) -> Any:
        if lr is not None and lr < 0:
            whose = "" if index is None else f" of parameter {index!r}"
            raise ArgumentError(f"{type(self).__name__}: the learning rate{whose} can't be negative, got {lr}")
        return lr
