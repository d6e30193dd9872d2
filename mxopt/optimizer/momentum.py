"""Optimizers that keep a velocity if they have a momentum."""

from __future__ import annotations

from typing import ClassVar

from mxopt.optimizer.base import Index
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.options import number
from mxopt.rules.rule import Rule
from mxopt.typing import Document, Plain


class MomentumOptimizer(RuleOptimizer):
    """Keeps velocities from the first momentum on that isn't 0. `rules` are that without a velocity
    and that with one.

    The momentum may be changed at any time. If it becomes 0, the velocities stay, and are still
    updated.
    """

    rules: ClassVar[tuple[Rule, Rule]]
    has_velocity: bool = False

    @property
    def momentum(self) -> float:
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        number(f"{type(self).__name__}: momentum", value, nan=True)
        self._momentum = value
        self.has_velocity = self.has_velocity or bool(value)

    @property
    def rule(self) -> Rule:
        return self.rules[1] if self.has_velocity else self.rules[0]

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.momentum) if self.has_velocity else (lr,)

    def get_counts(self) -> Plain:
        return {**super().get_counts(), "has_velocity": self.has_velocity}

    def set_counts(self, counts: Document) -> None:
        super().set_counts(counts)
        self.has_velocity = self.has_velocity or bool(counts.get("has_velocity"))
