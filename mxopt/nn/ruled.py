"""Optimizers of `mxopt.nn` that are made of a rule: all but LARS, which wraps another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar, Literal

import numpy as np

from mxopt.arguments import check_kept
from mxopt.engine.steps import distinct
from mxopt.errors import NotDefinedError
from mxopt.nn import gradients as g
from mxopt.nn.optimizer import Optimizer
from mxopt.nn.parameters import ParameterGroup, ParameterTuple, decay_at, rate_at, zeros
from mxopt.optimizer.grouped import Seen, Slot, Step
from mxopt.parameter import Parameter
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.state_dtype import check, dtype_of
from mxopt.typing import Array, Gradients

Own = Any  # what else a parameter's hyper-parameters depend on: see `scalars`
WeightDecay = Literal["added to the gradient", "the rule's own", "unknown to the rule"]


class RuleOptimizer(Optimizer):
    """An optimizer made of a rule of `mxopt.rules`: one compiled pass over all parameters.

    A subclass sets `rule`, calls `keep` in its constructor, and defines `scalars`. Weight decay and
    loss scale become hyper-parameters of the rule where that gives the same numbers: `decay` says
    how the rule treats weight decay. `lazy` leaves alone the rows that a row-sparse gradient lacks.
    Methods of `overridable` that a class from outside overrides are called, as MindSpore's steps
    call them.
    """

    has_rule: ClassVar[bool] = True
    state_names: tuple[str, ...]
    rule: Rule
    lazy: bool = False
    decay: ClassVar[WeightDecay] = "added to the gradient"

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        """The learning rate that the rule takes at step `t`, from 1, then the rule's own
        hyper-parameters in its order.

        `own` is the result of the method `own` for the parameter, or the number that the step
        before handed on.
        """
        raise NotDefinedError(f"{type(self).__name__} must define scalars")

    def keep(self, *more: str, **states: float | Callable[[float], float]) -> None:
        """Makes the rule's states, in its order: attributes of these names, filled with a number,
        or with a function of the parameter's learning rate; of float32 for 16-bit parameters.
        `more` are the names of further states that a subclass's `new_states` makes."""
        check(self.state_dtype, self.rule, type(self).__name__)
        self._first, self.state_names = states, (*states, *more)
        for slot, key in zip(self._slots, self.keys(), strict=True):
            slot.key = key
        for slot, lr in zip(self._slots, self._rates(), strict=True):
            slot.carry, slot.own = self.first_carry, self.own(slot.weight)
            slot.arrays = dict(zip(self.state_names, self.new_states(slot.weight, lr), strict=True))
        for name in self.state_names:
            pairs = [(slot.arrays[name], slot.parameter.name) for slot in self._slots]
            setattr(
                self, name, ParameterTuple(Parameter(x, f"{name}.{whose}" if whose else name) for x, whose in pairs)
            )

    def new_states(self, weight: Array, lr: float) -> tuple[Array, ...]:
        """The states of a parameter whose first learning rate is `lr`."""
        dtype = dtype_of(self.state_dtype, weight)
        found = tuple(zeros(weight.shape, weight, dtype) for _ in self._first)
        for state, value in zip(found, self._first.values(), strict=True):
            state[...] = value(lr) if callable(value) else value
        return found

    def construct(self, gradients: Gradients) -> bool:
        """Updates all parameters in place, and returns True.

        Parameters
        ----------
        gradients : tuple of array or RowSparse or None
            In the order of `parameters`, and of their shapes; never changed. A parameter without
            one, or with `requires_grad` False, is left alone.

        Raises
        ------
        ArrayError
            A gradient doesn't fit its parameter, which the message names. Then nothing has been
            changed.
        """
        grads = self._gradients(gradients)
        ready = not self.overridden.isdisjoint(self.preparing)
        if ready:
            grads = self._made_ready(grads)
        self.apply(None, self._slots, self._of_trained(grads), self._count, ready)
        return True

    def _count(self, slots: Sequence[Slot], steps: Iterable[int], carries: Iterable[float]) -> Iterable[object]:
        counted = map(setattr, (self,), ("global_step",), (self.global_step + 1,))
        return chain(counted, map(setattr, slots, repeat("carry"), carries)) if carries else counted

    def _rule_of(self, group: int) -> tuple[Rule, bool]:
        return self.rule, self.lazy

    def _rates_of(self, group: int, step: int) -> tuple[ParameterGroup, float, float]:
        found = self.groups[group]
        return found, rate_at(found.rate, step), decay_at(found.decay, step)

    def _states_of(self, slot: Slot, rule: Rule) -> tuple[tuple[Array, ...], Array]:
        return tuple(slot.arrays.values())[: len(rule.states)], None

    def _ats(self, seen: Seen, ready: bool) -> tuple[list[Step], list[int]]:
        if self.overridden.isdisjoint(("get_lr", "get_weight_decay")):
            return super()._ats(seen, ready)
        numbers = zip(self._slots, self.step_rates(), self.step_decays(), strict=True)
        theirs = {slot: (lr, wd / self.loss_scale) for slot, lr, wd in numbers}
        found, which = distinct([[theirs[slot] for slot in seen.slots], seen.which, [s.carry for s in seen.slots]])
        t, ats = self.global_step + 1, []
        for (lr, wd), k, carry in found:
            number, real, own, *_ = seen.kinds[k]
            ats.append(Step(self.groups[number], lr, wd, t, carry, real, own, ready))
        return ats, which

    def _hypers(self, at: Step) -> tuple[float, ...]:
        own = self.scalars(at.lr, at.t, at.carry if self.carried else at.own)
        wd = 0.0 if at.ready and self.decay == "added to the gradient" else at.wd
        return (own[0], wd, 1.0 if at.ready else self.rescale_grad / self.loss_scale, math.inf, *own[1:])

    def _check_options(self) -> None:
        check_kept(self, self.state_names)

    @property
    def elementwise(self) -> bool:
        """Whether gradients are prepared element by element, that is, not centralized."""
        return not any(group.centralized for group in self.groups)

    # Gradients that the rule can't take as they are.

    preparing: ClassVar[tuple[str, ...]] = ("decay_weight", "gradients_centralization", "scale_grad")
    """The methods that prepare the gradients, in this order, if a subclass overrides one of
    them."""

    def _made_ready(self, grads: list[Array]) -> list[Array]:
        """The gradients, prepared by these methods."""
        for slot, grad in zip(self._slots, grads, strict=True):
            if grad is not None:
                self._tensor(slot, grad, self.rule).check(self.rule)
        ready: Array = tuple(grad if grad is None else g.widened(grad) for grad in grads)
        for method in self.preparing:
            if method != "decay_weight" or self.decay != "the rule's own":
                ready = getattr(self, method)(ready)
        return self._gradients(ready)

    def _prepare(
        self, slots: list[Slot], grads: list[Array], types: set[type], ats: list[Step], which: list[int]
    ) -> tuple[list[Any], list[Step], list[int]]:
        if ats[0].ready or (types == {np.ndarray} and True not in [self._needs(at, False) for at in ats]):
            return grads, ats, which
        each = [ats[k] for k in which]
        needs = [self._needs(at, isinstance(grad, RowSparse)) for at, grad in zip(each, grads, strict=True)]
        grads = [
            self._prepared(slot, grad, at) if needed else grad
            for slot, grad, at, needed in zip(slots, grads, each, needs, strict=True)
        ]
        found, which = distinct([which, needs])
        return grads, [ats[k]._replace(ready=needed) for k, needed in found], which

    def _needs(self, at: Step, sparse: bool) -> bool:
        """Whether a gradient must be prepared before the rule takes it."""
        if self.decay == "added to the gradient" and sparse and not self.lazy:
            return True  # the rule would decay all rows, not only those with a gradient
        return at.group.centralized or (self.decay == "unknown to the rule" and at.wd != 0)

    def _prepared(self, slot: Slot, grad: Array, at: Step) -> Array:
        """The gradient after weight decay (unless that is the rule's own), centralization and loss
        scale, as MindSpore orders them."""
        self._tensor(slot, grad, self.rule).check(self.rule)
        grad = g.widened(grad)
        if at.wd and self.decay != "the rule's own":
            grad = g.decayed(grad, slot.weight, at.wd * (self.loss_scale / self.rescale_grad))
        if at.group.centralized:
            grad = g.centralized(grad)
        return grad * (self.rescale_grad / self.loss_scale)
