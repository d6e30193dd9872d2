"""Optimizers that keep a velocity if they have a momentum."""

from __future__ import annotations

from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.typing import Document, Plain


class MomentumOptimizer(RuleOptimizer):
    """Keeps velocities from the first momentum on that isn't 0.

    The momentum may be changed at any time. If it becomes 0, the velocities stay, and are still
    updated.
    """

    has_velocity: bool = False

    @property
    def momentum(self) -> float:
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum = value
        self.has_velocity = self.has_velocity or bool(value)

    def get_counts(self) -> Plain:
        return {**super().get_counts(), "has_velocity": self.has_velocity}

    def set_counts(self, counts: Document) -> None:
        super().set_counts(counts)
        self.has_velocity = self.has_velocity or bool(counts.get("has_velocity"))
