"""How an optimizer's states are stored: their dtype, and the seed of their rounding, which is saved
with the counts."""

from __future__ import annotations

from mxopt.optimizer.multipliers import Multipliers
from mxopt.state_dtype import StateDtype, seed_of, without_rule
from mxopt.typing import Document, Plain


class Rounded(Multipliers):
    """What an optimizer's states are stored in, and how they are rounded."""

    seed: int | None
    _state_dtype: StateDtype = None

    @property
    def state_dtype(self) -> StateDtype:
        """What states are stored in, as the argument. States that there are already aren't
        converted: the next update refuses them if it is set to another."""
        return self._state_dtype

    @state_dtype.setter
    def state_dtype(self, asked: StateDtype) -> None:
        if asked is not None:
            self.check_state_dtype(asked)
        self._state_dtype = asked
        self._prepare_anew()

    def _prepare_anew(self) -> None:
        """Forgets what is prepared for later updates."""

    def check_state_dtype(self, asked: str) -> None:
        """Raises ArgumentError if states can't be of this dtype."""
        raise without_rule(type(self).__name__)

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
