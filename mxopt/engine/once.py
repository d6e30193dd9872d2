"""Parts of a plan that serve one update: the next one makes a new plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class OncePart:
    """A `PlanPart` that takes no other arrays than those it was made for."""

    lasting: bool = False
    direct: bool = False
    address: int = 0

    def bind_one(self, weight: object, grad: object) -> bool:
        return False

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        return False

    def forbid(self, taken: np.ndarray) -> None:
        """Nothing to do: the arrays were checked when the part was made."""
