"""Optimizers of `mxopt.nn` whose step is a rule: all but LARS, which wraps another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from mxopt.engine import Tensor
from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.nn import gradients as g
from mxopt.nn.batches import Batch, Batches
from mxopt.nn.optimizer import TARGETS, Optimizer
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse

Row = tuple[float, ...]

_marks = attrgetter("requires_grad", "lr_mult", "wd_mult")


class Kind(NamedTuple):
    """What the hyper-parameters of a parameter follow from."""

    rate: int  # the `id` of the slot's
    decay: int
    centralized: bool
    own: Any
    requires_grad: bool
    lr_mult: float
    wd_mult: float


class RuleOptimizer(Optimizer):
    """An optimizer made of a rule of `mxopt.rules`: one compiled pass over all parameters.

    A subclass sets `rule`, calls `keep` in its constructor, and defines `scalars`. Weight decay and loss scale become
    hyper-parameters of the rule where that gives the same numbers: `decay` says what the rule takes weight decay for.
    `lazy` says whether rows stay as they are for which a row-sparse gradient has none.
    """

    rule: Rule
    lazy: bool = False
    decay: ClassVar[Literal["added to the gradient", "the rule's own", "unknown to the rule"]] = "added to the gradient"

    def scalars(self, lr: float, t: int, own: Any) -> Row:
        """The learning rate the rule takes at step `t` (from 1), then the rule's own hyper-parameters in its order.

        `own` is what the method `own` says of the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scalars")

    def own(self) -> Sequence[Any]:
        """For each parameter what `scalars` depends on beside learning rate and step; the same list while it stays."""
        return self._nothing

    def keep(self, **states: float | Sequence[float]) -> None:
        """Makes the rule's states, in its order: attributes of these names, filled with a number (or one for each
        parameter). float32 for 16-bit parameters."""
        for name, value in states.items():
            state = self.parameters.clone(name)
            values = value if isinstance(value, Sequence) else [value] * len(state)
            for parameter, x in zip(state, values, strict=True):
                parameter.value[...] = x
            setattr(self, name, state)
        kept, count = [getattr(self, name) for name in states], len(self.parameters)
        self._batches = Batches(self._slots, [tuple(state[k].value for state in kept) for k in range(count)])
        self._nothing, self._everything = [None] * count, tuple(range(count))
        self._known: tuple[Any, ...] = (None, None, None)
        self._kinds: list[Kind] = []
        self._which: list[int] = []

    def construct(self, gradients: Any) -> bool:
        """Updates all parameters in place, and returns True.

        Parameters
        ----------
        gradients : tuple of array or RowSparse or None
            In the order of `parameters`, of their shapes; never changed. A parameter without one, or with
            `requires_grad` False, is left alone.

        Raises
        ------
        ArrayError
            A gradient doesn't fit its parameter. Nothing has been changed then, and the message names it.
        """
        grads = g.as_arrays(self._checked(gradients), self._slots)
        self._sort()
        kinds, which, positions, ready = self._kinds, self._which, self._everything, set[int]()
        rates_now, decays_now = self._rates_now(), self._decays_now()
        rates = [rates_now[kind.rate] * kind.lr_mult for kind in kinds]
        decays = [decays_now[kind.decay] * kind.wd_mult for kind in kinds]
        as_usual = all(
            kind.requires_grad and not self._needs(kind, decay, False)
            for kind, decay in zip(kinds, decays, strict=True)
        )
        if not as_usual or set(map(type, grads)) != {np.ndarray}:
            positions = tuple(k for k in positions if grads[k] is not None and kinds[which[k]].requires_grad)
            for k in positions:
                kind, decay = kinds[which[k]], decays[which[k]]
                if self._needs(kind, decay, isinstance(grads[k], RowSparse)):
                    grads[k] = self._prepared(k, grads[k], kind, decay)
                    ready.add(k)
        rows = [
            self._row(lr, decay, is_ready, kind.own)
            for is_ready in ((False, True) if ready else (False,))
            for lr, decay, kind in zip(rates, decays, kinds, strict=True)
        ]
        numbers = [n + len(kinds) * (k in ready) for k, n in enumerate(which)] if ready else which
        plans = self._batches.plans(self.rule, self.lazy, positions, grads)
        self._commit(positions)
        for batch, plan in plans:
            plan.run(*_used(rows, [numbers[k] for k in batch] if batch != self._everything else numbers))
        return True

    def _sort(self) -> None:
        """Finds out the distinct kinds of parameters, and which is each one's."""
        slots, own, marks = self._slots, self.own(), list(map(_marks, self.parameters))
        if self._known[0] is slots and self._known[1] is own and self._known[2] == marks:
            return
        kinds = [Kind(id(s.rate), id(s.decay), s.centralized, o, *m) for s, o, m in zip(slots, own, marks, strict=True)]
        number = {kind: n for n, kind in enumerate(dict.fromkeys(kinds))}
        self._kinds, self._which = list(number), [number[kind] for kind in kinds]
        self._known = slots, own, marks

    def _row(self, lr: float, wd: float, ready: bool, own: Any) -> Row:
        """The hyper-parameters of a parameter, which is `ready` if its gradient has been prepared."""
        rate, *scalars = self.scalars(lr, self.global_step + 1, own)
        if ready and self.decay == "added to the gradient":
            wd = 0.0
        return (rate, wd, 1.0 if ready else 1 / self.loss_scale, math.inf, *scalars)

    def _commit(self, positions: Batch) -> None:
        """Called right before a step of these parameters, which nothing can refuse any more."""

    # Gradients that the rule can't take as they are.

    def _needs(self, kind: Kind, decay: float, sparse: bool) -> bool:
        """Whether a gradient must be prepared."""
        if self.decay == "added to the gradient" and sparse and not self.lazy:
            return True  # or all rows would be decayed, not only those with a gradient
        return kind.centralized or (self.decay == "unknown to the rule" and decay != 0)

    def _prepared(self, k: int, grad: Any, kind: Kind, decay: float) -> Any:
        """The gradient after weight decay (unless that is the rule's own), centralization and loss scale."""
        slot = self._slots[k]
        Tensor(slot.where, slot.parameter.value, grad, self._batches.states[k]).check(self.rule)
        grad = g.widened(grad)
        if decay and self.decay != "the rule's own":
            grad = g.decayed(grad, slot.parameter.value, decay * self.loss_scale)
        if kind.centralized:
            grad = g.centralized(grad)
        return g.scaled(grad, 1 / self.loss_scale)

    @property
    def target(self) -> str:
        """'GPU' for CuPy's arrays, else 'CPU'. Setting it to where the arrays are is allowed, and changes nothing."""
        return super().target

    @target.setter
    def target(self, value: str) -> None:
        owner = type(self).__name__
        if not isinstance(value, str):
            raise ArgumentTypeError(f"{owner}: target must be a text, got {value!r}")
        if value not in TARGETS or (value != "CPU" and self.target == "CPU"):
            raise ArgumentError(f"{owner}: target must be where the parameters are, {self.target!r}, got {value!r}")


def _used(rows: list[Row], numbers: list[int]) -> tuple[list[Row], list[int]]:
    """The rows that are used, and their numbers."""
    if len(rows) == 1:
        return rows, numbers
    used = {n: k for k, n in enumerate(dict.fromkeys(numbers))}
    return [rows[n] for n in used], [used[n] for n in numbers]
