"""Optimizers of `mxopt.nn` whose step is a rule: all but the ones that wrap another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from mxopt.engine import Plans, Tensor, arrays
from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.nn import gradients as g
from mxopt.nn.optimizer import TARGETS, Optimizer
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse

PLANS = 8  # kept by an optimizer: one for each set of parameters that had gradients


class RuleOptimizer(Optimizer):
    """An optimizer made of a rule of `mxopt.rules`: one compiled pass over all parameters.

    A subclass sets `rule`, calls `keep` in its constructor, and defines `scalars`. Weight decay and loss scale become
    hyper-parameters of the rule where that gives the same numbers: `decay` says what the rule takes weight decay for.
    `lazy` says whether rows stay as they are for which a row-sparse gradient has none.
    """

    rule: Rule
    lazy: bool = False
    decay: ClassVar[Literal["added to the gradient", "the rule's own", "unknown to the rule"]] = "added to the gradient"

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        """The learning rate the rule takes at step `t` (from 1), then the rule's own hyper-parameters in its order.

        `own` is what the method `own` says of the parameter.
        """
        raise NotImplementedError

    def keep(self, **states: float | Sequence[float]) -> None:
        """Makes the rule's states, in its order: attributes of these names, filled with a number (or one for each
        parameter). float32 for 16-bit parameters."""
        for name, value in states.items():
            state = self.parameters.clone(name)
            values = value if isinstance(value, Sequence) else [value] * len(state)
            for parameter, x in zip(state, values, strict=True):
                parameter.value[...] = x
            setattr(self, name, state)
        kept = [getattr(self, name) for name in states]
        self._states = [tuple(state[k].value for state in kept) for k in range(len(self.parameters))]
        self._weights = [p.value for p in self.parameters]
        self._plans = Plans(PLANS)

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
        grads: list[Any] = list(self._checked(gradients))
        if set(map(type, grads)) != {np.ndarray}:
            grads = [
                grad if grad is None else arrays.as_array(grad, f"{slot.where}, gradient")
                for grad, slot in zip(grads, self._slots, strict=True)
            ]
        positions = [k for k, p in enumerate(self.parameters) if p.requires_grad and grads[k] is not None]
        if not positions:
            return True
        rates, decays = self._rates(), self._decays()
        ready = {k: self._prepared(k, grads[k], decays[k]) for k in positions if self._needs(k, grads[k], decays[k])}
        weights = [self._weights[k] for k in positions]
        grads = [ready.get(k, grads[k]) for k in positions]
        states = [self._states[k] for k in positions]
        key = tuple(positions)
        plan = self._plans.find(key, self.rule, self.lazy, weights, grads, states)
        if plan is None:
            tensors = [
                Tensor(self._slots[k].where, w, x, s) for k, w, x, s in zip(key, weights, grads, states, strict=True)
            ]
            plan = self._plans.make(key, self.rule, self.lazy, tensors, states)
        self._before(positions, grads)
        plan.run(*self._hypers(positions, rates, decays, ready))
        return True

    def _hypers(
        self, positions: list[int], rates: list[float], decays: list[float], ready: dict[int, Any]
    ) -> tuple[list[tuple[float, ...]], list[int]]:
        """The distinct rows of hyper-parameters, and for each parameter which row is its own."""
        rows: dict[tuple[float, float, bool, Any], int] = {}
        which = [rows.setdefault((rates[k], decays[k], k in ready, self.own(k)), len(rows)) for k in positions]
        return [self._row(*kind) for kind in rows], which

    def _row(self, lr: float, wd: float, ready: bool, own: Any) -> tuple[float, ...]:
        rate, *scalars = self.scalars(lr, self.global_step + 1, own)
        if ready and self.decay == "added to the gradient":
            wd = 0.0
        return (rate, wd, 1.0 if ready else 1 / self.loss_scale, math.inf, *scalars)

    def own(self, k: int) -> Any:
        """What `scalars` depends on beside the learning rate and the step, for parameter k. Nothing here."""

    def _before(self, positions: list[int], grads: list[Any]) -> None:
        """Called with the gradients that the rule will see, right before a step that nothing can refuse any more."""

    # Gradients that the rule can't take as they are.

    def _needs(self, k: int, grad: Any, decay: float) -> bool:
        if self._slots[k].centralized:
            return True
        if self.decay == "added to the gradient":  # a rule that moves all rows would also decay all of them
            return isinstance(grad, RowSparse) and decay != 0 and not self.lazy
        return self.decay == "unknown to the rule" and decay != 0

    def _prepared(self, k: int, grad: Any, decay: float) -> Any:
        """The gradient after weight decay (unless that is the rule's own), centralization and loss scale."""
        slot = self._slots[k]
        check = Tensor(slot.where, slot.parameter.value, grad, self._states[k])
        check.check(self.rule)
        grad = g.widened(grad)
        if decay and self.decay != "the rule's own":
            grad = g.decayed(grad, slot.parameter.value, decay * self.loss_scale)
        if slot.centralized:
            grad = g.centralized(grad)
        return g.scaled(grad, 1 / self.loss_scale)

    @property
    def target(self) -> str:
        """'GPU' for CuPy's arrays, else 'CPU'. Setting it to where the arrays are is allowed, and changes nothing."""
        return Optimizer.target.fget(self)  # type: ignore[attr-defined, no-any-return]

    @target.setter
    def target(self, value: str) -> None:
        owner = type(self).__name__
        if not isinstance(value, str):
            raise ArgumentTypeError(f"{owner}: target must be a text, got {value!r}")
        if value not in TARGETS or (value != "CPU" and self.target == "CPU"):
            raise ArgumentError(f"{owner}: target must be where the parameters are, {self.target!r}, got {value!r}")
