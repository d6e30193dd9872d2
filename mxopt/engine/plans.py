"""The plans an optimizer has made, found again by key."""

from __future__ import annotations

import operator
import threading
from collections.abc import Hashable, Sequence

from mxopt.engine.choice import engine_in_use
from mxopt.engine.plan import Plan
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule
from mxopt.typing import Array, State


class Plans:
    """At most `limit` plans, each with the states it was made for; the one made first goes first.

    `states` are any objects that stay the same as long as the arrays in them do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._made: dict[Hashable, tuple[Plan, list[State]]] = {}
        self._changing = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """A copy starts empty: plans hold the addresses of one owner's states."""
        return Plans, (self.limit,)

    def find(
        self,
        key: Hashable,
        rule: Rule,
        lazy: bool,
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
    ) -> Plan | None:
        """The plan made under `key`, bound to these arrays; None where there is none, or they are
        of another kind."""
        plan, before = self._made.get(key, (None, []))
        if (
            plan is not None
            and plan.rule is rule
            and plan.lazy == lazy
            and plan.engine == engine_in_use()
            and len(states) == len(before)
            and all(map(operator.is_, states, before))
            and plan.bind(weights, grads)
        ):
            return plan
        return None

    def make(self, key: Hashable, rule: Rule, lazy: bool, tensors: Sequence[Tensor], states: Sequence[State]) -> Plan:
        """A new plan, kept under `key` if it can serve again. Raises ArrayError where the arrays
        can't be updated."""
        plan = Plan(engine_in_use(), rule, tensors, lazy)
        with self._changing:
            self._made.pop(key, None)
            if plan.lasting:
                while len(self._made) >= self.limit:
                    del self._made[next(iter(self._made))]
                self._made[key] = (plan, list(states))
        return plan
