"""Optimizers that keep a velocity where they are given a momentum."""

from __future__ import annotations

from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.typing import Document, Plain


class MomentumOptimizer(RuleOptimizer):
    """Knows whether there are velocities: from the first momentum that isn't 0 on.

    The momentum may be changed at any time. One set to 0 later on is a number like any other: the
    velocities stay, and are renewed.
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
