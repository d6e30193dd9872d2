"""Optimizers of `mxopt.nn` whose step is a rule: all but LARS, which wraps another."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from itertools import chain, compress, repeat
from operator import attrgetter
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from mxopt.engine import Steps, Tensor
from mxopt.engine.steps import Call, distinct, run
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError
from mxopt.nn import gradients as g
from mxopt.nn.optimizer import TARGETS, Optimizer
from mxopt.nn.parameters import ParameterTuple, Slot, zeros
from mxopt.parameter import Parameter
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse

Row = tuple[float, ...]

_marks = attrgetter("lr_mult", "wd_mult", "requires_grad")


class Seen(NamedTuple):
    """Parameters, and what distinguishes them."""

    slots: list[Slot]
    params: list[Parameter]
    weights: list[Any]
    marks: list[tuple[float, float, bool]]
    trained: bool  # all of them
    distinct: list[tuple[Any, ...]]
    which: list[int]


class Kind(NamedTuple):
    """What the hyper-parameters of a parameter follow from: its rate and weight decay at step `t`, and more."""

    lr: float
    wd: float
    centralized: bool
    own: Any
    t: int


class RuleOptimizer(Optimizer):
    """An optimizer made of a rule of `mxopt.rules`: one compiled pass over all parameters.

    A subclass sets `rule`, calls `keep` in its constructor, and defines `scalars`. Weight decay and loss scale become
    hyper-parameters of the rule where that gives the same numbers: `decay` says what the rule takes weight decay for.
    `lazy` says whether rows stay as they are for which a row-sparse gradient has none. What a class from outside
    overrides of `overridable` is called, as MindSpore's steps call it.
    """

    rule: Rule
    lazy: bool = False
    decay: ClassVar[Literal["added to the gradient", "the rule's own", "unknown to the rule"]] = "added to the gradient"

    def scalars(self, lr: float, t: int, own: Any) -> Row:
        """The learning rate the rule takes at step `t` (from 1), then the rule's own hyper-parameters in its order.

        `own` is what the method `own` says of the parameter.
        """
        raise NotDefinedError(f"{type(self).__name__} must define scalars")

    carried: ClassVar[str | None] = None  # the name of the number that `own` is where it changes at each step
    first_carry: ClassVar[float] = 0.0

    def own(self, weight: Any) -> Any:
        """What `scalars` depends on for a parameter beside learning rate and step: anything hashable."""

    def next_own(self, kind: Kind) -> Any:
        """What `own` is after this step of a parameter, where `carried` has a name for it."""

    def keep(self, **states: float | Callable[[float], float]) -> None:
        """Makes the rule's states, in its order: attributes of these names, filled with a number, or with what a
        function makes of the parameter's learning rate. float32 for 16-bit parameters."""
        self._first, self.state_names = states, tuple(states)
        self.steps = Steps()
        self._seen: Seen | None = None
        for slot, lr in zip(self._slots, self._rates(), strict=True):
            slot.states, slot.own = self.new_states(slot.weight, lr), self.own(slot.weight)
        for k, name in enumerate(states):
            pairs = [(slot.states[k], slot.parameter.name) for slot in self._slots]
            setattr(
                self, name, ParameterTuple(Parameter(x, f"{name}.{whose}" if whose else name) for x, whose in pairs)
            )

    def new_states(self, weight: Any, lr: float) -> tuple[Any, ...]:
        """The states of a parameter whose first learning rate is `lr`."""
        found = tuple(zeros(weight.shape, weight) for _ in self._first)
        for state, value in zip(found, self._first.values(), strict=True):
            state[...] = value(lr) if callable(value) else value
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_seen": None})  # it has the arrays of another

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
        counted, self.counted = self.counted, ()
        grads = g.as_arrays(self._checked(gradients), self._slots)
        ready = any(method in self.overridden for method in self.preparing) if self.overridden else False
        if ready:
            grads = self._made_ready(grads)
        self.apply(None, self._slots, grads, lambda slots, owns: chain(self._count(slots, owns), *counted), ready)
        return True

    def apply(
        self,
        key: Hashable,
        slots: list[Slot],
        grads: list[Any],
        count: Callable[[list[Slot], list[Any]], Iterable[object]],
        ready: bool = False,
    ) -> None:
        """Updates parameters by their gradients, None for none. Calls of the same parameters have the same `key`.

        `count(slots, owns)`, with what `own` is from then on, if that changes, counts an update with it: an iterator
        that calls functions of C. `ready` gradients have their weight decay, centralization and loss scale.
        Raises ArrayError, and changes nothing, where one can't be updated.
        """
        types, seen = set(map(type, grads)), self._look(slots)
        if type(None) in types or not seen.trained:
            given = [grad is not None and slot.parameter.requires_grad for slot, grad in zip(slots, grads, strict=True)]
            key, slots, grads = (key, *given), list(compress(slots, given)), list(compress(grads, given))
            types, seen = set(map(type, grads)), self._look(slots)
        if not slots:
            return
        kinds, which = self._kinds(slots, seen)
        after: list[Any] = []
        if self.carried:
            owns = [self.next_own(kind) for kind in kinds]
            after = [owns[k] for k in which]
        if ready or (types == {np.ndarray} and not any(self._needs(kind, False) for kind in kinds)):
            rows = [self._row(kind, ready) for kind in kinds]
        else:
            each = [kinds[k] for k in which]
            needs = [self._needs(kind, isinstance(grad, RowSparse)) for kind, grad in zip(each, grads, strict=True)]
            grads = [
                self._prepared(slot, grad, kind) if needed else grad
                for slot, grad, kind, needed in zip(slots, grads, each, needs, strict=True)
            ]
            numbers, which = distinct([which, needs])
            rows = [self._row(kinds[k], is_ready) for k, is_ready in numbers]
        self._seen = None if after else self._seen
        run(self._calls(key, slots, seen.weights, grads), rows, which, count(slots, after))

    def _count(self, slots: list[Slot], owns: list[Any]) -> Iterable[object]:
        return map(setattr, slots, repeat("own"), owns)

    def _look(self, slots: list[Slot]) -> Seen:
        """What there is to know about these parameters, nothing of which changes in most steps."""
        seen = self._seen
        if seen is not None and seen.slots is slots and seen.marks == list(map(_marks, seen.params)):
            return seen
        params = [slot.parameter for slot in slots]
        marks = list(map(_marks, params))
        fixed = [(slot.group, slot.own, slot.step) for slot in slots]
        kinds, which = distinct([fixed, marks]) if slots else ([], [])
        trained = all(needed for _, _, needed in marks)
        found = Seen(slots, params, [slot.weight for slot in slots], marks, trained, kinds, which)
        if slots is self._slots:
            self._seen = found
        return found

    def _kinds(self, slots: list[Slot], seen: Seen) -> tuple[list[Kind], list[int]]:
        """What distinguishes parameters at this step, and which is each one's."""
        if not self.overridden & {"get_lr", "get_weight_decay"}:
            kinds, known = [], dict[int | None, Any]()
            for (group, own, step), (lr, wd, _) in seen.distinct:
                if step not in known:
                    at = self.global_step if step is None else step
                    known[step] = self._rates_at(at), self._decays_at(at), at + 1
                rates, decays, t = known[step]
                kinds.append(Kind(rates[id(group.rate)] * lr, decays[id(group.decay)] * wd, group.centralized, own, t))
            return kinds, seen.which
        numbers = zip(self.step_rates(), self.step_decays(), strict=True)
        theirs = {slot: (lr, wd / self.loss_scale) for slot, (lr, wd) in zip(self._slots, numbers, strict=True)}
        found, which = distinct([[(*theirs[slot], slot.group.centralized, slot.own) for slot in slots]])
        return [Kind(lr, wd, centred, own, self.global_step + 1) for ((lr, wd, centred, own),) in found], which

    def _calls(self, key: Hashable, slots: list[Slot], weights: list[Any], grads: list[Any]) -> list[Call]:
        rule, lazy = self.rule, self.lazy
        found = self.steps.find(key, rule, lazy, weights, grads, slots)
        if found is None:
            tensors = [self._tensor(slot, grad) for slot, grad in zip(slots, grads, strict=True)]
            found = self.steps.make(key, rule, lazy, tensors, slots)
        return found

    def _tensor(self, slot: Slot, grad: Any) -> Tensor:
        return Tensor(slot.where, slot.weight, grad, slot.states[: len(self.rule.states)])

    def _row(self, kind: Kind, ready: bool) -> Row:
        """The hyper-parameters of a parameter, which is `ready` if its gradient has been prepared."""
        rate, *scalars = self.scalars(kind.lr, kind.t, kind.own)
        wd = 0.0 if ready and self.decay == "added to the gradient" else kind.wd
        return (rate, wd, 1.0 if ready else self.rescale_grad / self.loss_scale, math.inf, *scalars)

    @property
    def elementwise(self) -> bool:
        """Whether each element is updated by itself, so that servers may cut arrays."""
        centralized = any(slot.group.centralized for slot in self._slots)
        return not (self.carried or centralized or self.rule.layerwise or self.rule.row_state)

    # Gradients that the rule can't take as they are.

    preparing: ClassVar[tuple[str, ...]] = ("decay_weight", "gradients_centralization", "scale_grad")
    """The methods by which a step prepares the gradients, where a subclass overrides one, in this order."""

    def _made_ready(self, grads: list[Any]) -> list[Any]:
        """The gradients prepared by these methods."""
        for slot, grad in zip(self._slots, grads, strict=True):
            if grad is not None:
                self._tensor(slot, grad).check(self.rule)
        ready: Any = tuple(grad if grad is None else g.widened(grad) for grad in grads)
        for method in self.preparing:
            if method != "decay_weight" or self.decay != "the rule's own":
                ready = getattr(self, method)(ready)
        return g.as_arrays(self._checked(ready), self._slots)

    def _needs(self, kind: Kind, sparse: bool) -> bool:
        """Whether a gradient must be prepared."""
        if self.decay == "added to the gradient" and sparse and not self.lazy:
            return True  # or all rows would be decayed, not only those with a gradient
        return kind.centralized or (self.decay == "unknown to the rule" and kind.wd != 0)

    def _prepared(self, slot: Slot, grad: Any, kind: Kind) -> Any:
        """The gradient after weight decay (unless that is the rule's own), centralization and loss scale."""
        self._tensor(slot, grad).check(self.rule)
        grad = g.widened(grad)
        if kind.wd and self.decay != "the rule's own":
            grad = g.decayed(grad, slot.weight, kind.wd * (self.loss_scale / self.rescale_grad))
        if kind.centralized:
            grad = g.centralized(grad)
        return g.scaled(grad, self.rescale_grad / self.loss_scale)

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
