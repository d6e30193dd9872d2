"""Plans for a list of parameters: those go together that one plan can keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.engine import Plan, Plans, Tensor, arrays
from mxopt.nn.parameters import Slot
from mxopt.rules.rule import Rule

PATTERNS = 8  # of parameters with a gradient; alternating between so many costs nothing extra

Batch = tuple[int, ...]  # positions in the optimizer's parameters


class Batches:
    """What is prepared for an optimizer's parameters `slots`, whose states are `states[k]`, the rule's arrays."""

    def __init__(self, slots: Sequence[Slot], states: Sequence[tuple[Any, ...]]) -> None:
        self.slots, self.states = slots, states
        self.weights = [slot.parameter.value for slot in slots]
        self._batches: dict[Batch, list[Batch]] = {}
        self._plans = Plans(PATTERNS + 2 * len(slots))

    def plans(self, rule: Rule, lazy: bool, positions: Batch, grads: Sequence[Any]) -> list[tuple[Batch, Plan]]:
        """The list calls that update the parameters at `positions` by their gradients, `grads[k]` for parameter k.

        Raises ArrayError where a gradient doesn't fit its parameter; nothing has been changed then.
        """
        known = self._batches.get(positions, [])
        found = [(batch, self._find(rule, lazy, batch, grads)) for batch in known]
        if known and all(plan is not None for _, plan in found):
            return found  # type: ignore[return-value]
        batches = self._sorted(positions, grads)
        made = [(b, self._find(rule, lazy, b, grads) or self._make(rule, lazy, b, grads)) for b in batches]
        while len(self._batches) >= PATTERNS:
            del self._batches[next(iter(self._batches))]
        self._batches[positions] = batches
        return made

    def _sorted(self, positions: Batch, grads: Sequence[Any]) -> list[Batch]:
        """Arrays of the same dtypes and without gaps in their memory together, every other by itself."""
        together: dict[Any, list[int]] = {}
        for k in positions:
            pair = self.weights[k], grads[k]
            plain = all(isinstance(x, np.ndarray) and arrays.is_plain(x) for x in pair)
            together.setdefault(tuple(x.dtype for x in pair) if plain else k, []).append(k)
        return [tuple(batch) for batch in together.values()]

    def _lists(self, batch: Batch, grads: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        if len(batch) == len(self.slots):
            return self.weights, grads, self.states
        return [self.weights[k] for k in batch], [grads[k] for k in batch], [self.states[k] for k in batch]

    def _find(self, rule: Rule, lazy: bool, batch: Batch, grads: Sequence[Any]) -> Plan | None:
        return self._plans.find(batch, rule, lazy, *self._lists(batch, grads))

    def _make(self, rule: Rule, lazy: bool, batch: Batch, grads: Sequence[Any]) -> Plan:
        weights, mine, states = self._lists(batch, grads)
        tensors = [
            Tensor(self.slots[k].where, weight, grad, state)
            for k, weight, grad, state in zip(batch, weights, mine, states, strict=True)
        ]
        return self._plans.make(batch, rule, lazy, tensors, states)
