"""Optimizers whose learning rate can't be negative: they divide by it, or take it for a variance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mxopt.errors import ArgumentError
from mxopt.optimizer.base import Index
from mxopt.optimizer.ruled import RuleOptimizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mxopt.optimizer.options import Options


class UnsignedRate(RuleOptimizer):
    """Refuses a negative learning rate where it is given, and at an update, whatever it comes from."""

    def __init__(self, learning_rate: float | None = None, **kwargs: Unpack[Options]) -> None:
        super().__init__(learning_rate=self._unsigned(learning_rate), **kwargs)

    def set_learning_rate(self, lr: float) -> None:
        super().set_learning_rate(self._unsigned(lr))

    def _unsigned(self, lr: Any) -> Any:
        if lr is not None and lr < 0:
            raise ArgumentError(f"{type(self).__name__}: the learning rate can't be negative, got {lr}")
        return lr

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        if lr < 0:
            owner = type(self).__name__
            raise ArgumentError(f"{owner}: the learning rate of parameter {index!r} can't be negative, got {lr}")
        return (lr,)
