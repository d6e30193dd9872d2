"""How an optimizer's states are stored: their dtype, and the seed of their rounding, which is saved
with the counts."""

from __future__ import annotations

from mxopt.optimizer.multipliers import Multipliers
from mxopt.state_dtype import StoredStates, seed_of
from mxopt.typing import Document, Plain


class Rounded(StoredStates, Multipliers):
    """What an optimizer's states are stored in, and how they are rounded."""

    seed: int | None

    def rounding_seed(self) -> int:
        """The seed of stochastic rounding."""
        return self.seed or 0

    def get_counts(self) -> Plain:
        rounds = self.state_dtype == "bfloat16" or self.seed is not None
        return super().get_counts() | ({"seed": self.rounding_seed()} if rounds else {})

    def set_counts(self, counts: Document) -> None:
        seed = seed_of(counts, self.seed)
        super().set_counts(counts)
        self.seed = seed
