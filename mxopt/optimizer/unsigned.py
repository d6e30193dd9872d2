"""Optimizers whose learning rate can't be negative: they divide by it, or take it for a variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mxopt.errors import ArgumentError
from mxopt.optimizer.base import LISTS, Index
from mxopt.optimizer.ruled import RuleOptimizer


class UnsignedRate(RuleOptimizer):
    """Refuses a negative learning rate where it is given, and at an update, whatever it comes from."""

    def __init__(self, learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(learning_rate=self._unsigned(learning_rate), **kwargs)

    def set_learning_rate(self, lr: float) -> None:
        super().set_learning_rate(self._unsigned(lr))

    def _unsigned(self, lr: Any, of: str = "") -> Any:
        if lr is not None and lr < 0:
            raise ArgumentError(f"{type(self).__name__}: the learning rate{of} can't be negative, got {lr}")
        return lr

    def _update_count(self, index: Index | Sequence[Index]) -> None:
        if self.lr_scheduler is not None or self.lr_mult or self.param_dict or self.lr < 0:
            self._check_each(index if isinstance(index, LISTS) else (index,))
        super()._update_count(index)

    def _check_each(self, indices: Sequence[Index]) -> None:
        counts, first = self._index_update_count, self.begin_num_update
        coming = max(self.num_update, *(counts.get(i, first) + 1 for i in indices))
        rate = self.lr if self.lr_scheduler is None else self.lr_scheduler(coming)
        for i in indices:
            self._unsigned(rate * self._multiplier("lr_mult", i), f" of parameter {i!r}")
