"""Optimizers that have their parameters in groups, as MindSpore's and PyTorch's: what is kept of
each parameter, and an update of any of them by their groups' rules."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress, repeat
from typing import Any, ClassVar, NamedTuple
from weakref import proxy

import numpy as np

from mxopt import state_dtype
from mxopt.arguments import NamedArguments
from mxopt.engine import Steps, Tensor
from mxopt.engine.rounding import Rounding
from mxopt.engine.steps import BatchPlan, distinct, run
from mxopt.errors import NotDefinedError
from mxopt.parameter import Parameter
from mxopt.rules.rule import Rule
from mxopt.state_dtype import StateDtype
from mxopt.typing import Array, Document, Plain

Count = Callable[[list["Slot"], list[float]], Iterable[object]]


@dataclass(eq=False, slots=True)
class Slot:
    """One parameter of an optimizer, and what is kept for it.

    `group` is the number of its group. `step` is the number of its updates, None where the
    optimizer counts for all. `arrays` are its states by name, and "master", the float32 copy of a
    16-bit weight, where there is one. `carry` is the one number that some optimizers hand on from
    step to step. `given` is what the caller handed over. `own` is what the optimizer's method of
    that name says of it, `real` the type of its arithmetic, numpy.float32 or numpy.float64.
    `weight` begins with element number `first` of the parameter whose states are saved under `key`.
    """

    name: Any  # a text, or a store's key
    place: str  # what errors call it
    group: int
    parameter: Parameter
    weight: Array
    carry: float = 0.0
    step: int | None = 0
    arrays: Plain = field(default_factory=dict)
    given: object = None
    own: Any = None
    key: Any = None  # its name, unless it has another
    first: int = 0
    real: type[np.floating] = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.name if self.key is None else self.key
        self.real = np.float64 if self.weight.dtype.itemsize == 8 else np.float32


class Step(NamedTuple):
    """What the hyper-parameters of one update of a parameter follow from.

    `lr` and `wd` are the group's, times the parameter's own multipliers. `t` counts its updates,
    from 1. `carry` is the number that the update before handed on. `real` is the type of the
    arithmetic, numpy.float32 or numpy.float64. `own` is what the optimizer says of the parameter. A
    `ready` gradient is taken as it is: scale and weight decay have been seen to.
    """

    group: Any
    lr: float
    wd: float
    t: int
    carry: float
    real: type[np.floating]
    own: Any = None
    ready: bool = False


class Seen(NamedTuple):
    """What is known of some parameters: their `marks`, whether all are `trained`, the numbers of
    their `groups`, and which of the `distinct` kinds is each one's."""

    slots: list[Slot]
    params: list[Parameter]
    marks: tuple[list[Any], ...]
    trained: bool
    groups: list[int]
    distinct: list[tuple[Any, ...]]
    which: list[int]


def _marks(params: list[Parameter]) -> tuple[list[Any], ...]:
    """What users change of their parameters."""
    return [p.lr_mult for p in params], [p.wd_mult for p in params], [p.requires_grad for p in params]


class GroupedOptimizer(NamedArguments):
    """The base of all optimizers that have their parameters in groups. A family of them defines
    what they are."""

    carried: ClassVar[str | None] = None  # the name of the number that is handed on from step to step, if one is
    first_carry: ClassVar[float] = 0.0
    multi_precision: bool = False
    rescale_grad: float = 1.0  # gradients are multiplied by this first: what a `Trainer` divides by a batch size
    state_dtype: StateDtype = None
    seed: int | None = None
    global_step: int = 0  # the number of steps, where slots don't count their own

    _slots: list[Slot]
    _seen: dict[Hashable, Seen]  # by the keys of `apply`
    _of_tensors = False  # whether the parameters are tensors, whose library is to hear of a step
    steps: Steps

    @property
    def slots(self) -> list[Slot]:
        """What is kept of each parameter, in the order of their gradients."""
        return self._slots

    def _hold(self, slots: list[Slot]) -> None:
        """Has these parameters from now on."""
        for slot in slots:  # a copy of a tensor is updated by way of its own memory
            slot.weight, slot.parameter.held = slot.parameter.value, True
        self._slots, self._seen = slots, {}
        self._of_tensors = any(slot.parameter.lender is not None for slot in slots)

    def __setstate__(self, state: Plain) -> None:
        vars(self).update(state)
        self._hold(self._slots)

    # What a family defines.

    def __call__(self, gradients: Array, /) -> Any:
        """Updates all parameters in place by their gradients, in their order."""
        raise NotDefinedError

    def load_state_dict(self, state_dict: Document) -> None:
        """Takes over what `state_dict` returned. Raises StatesError, and changes nothing, where it
        doesn't fit."""
        raise NotDefinedError

    def own(self, weight: Array) -> Any:
        """What the hyper-parameters of a parameter follow from beside rates and steps: anything
        hashable."""

    def uses_master(self, weight: Array) -> bool:
        """Whether `weight` is updated by way of a float32 copy."""
        return bool(self.multi_precision and weight.dtype.itemsize == 2)

    def hand_on(self, at: Step) -> float:
        """The number that an update hands on to the next one of its parameter, where `carried` has
        a name for it."""
        return at.carry

    def _rule_of(self, group: int) -> tuple[Rule, bool]:
        """The rule of a group, and whether it leaves alone the rows for which a row-sparse gradient
        has none."""
        raise NotDefinedError

    def _rates_of(self, group: int, step: int) -> tuple[Any, float, float]:
        """A group, and its learning rate and weight decay at a step, from 0."""
        raise NotDefinedError

    def _states_of(self, slot: Slot, rule: Rule) -> tuple[tuple[Array, ...], Array]:
        """The arrays of a rule's states, and the master copy where there is one."""
        raise NotDefinedError

    def _row(self, at: Step) -> tuple[float, ...]:
        """All hyper-parameters, as the rule takes them."""
        raise NotDefinedError

    def _prepare(
        self, slots: list[Slot], grads: list[Array], types: set[type], ats: list[Step], which: list[int]
    ) -> tuple[list[Array], list[Step], list[int]]:
        """The gradients, which are of these types, as the rule can take them; the steps as they are
        then, of which each parameter takes one."""
        return grads, ats, which

    # Updates.

    def apply(self, key: Hashable, slots: list[Slot], grads: list[Array], count: Count, ready: bool = False) -> None:
        """Updates parameters by their gradients, None for none. Calls of the same parameters have
        the same `key`.

        `count(slots, carries)`, with the numbers that they hand on, counts an update with it: an
        iterator that calls functions of C. Raises ArrayError, and changes nothing, where one can't
        be updated.
        """
        types, seen = set(map(type, grads)), self._look(key, slots)
        if type(None) in types or not seen.trained:
            given = [grad is not None and needed for grad, needed in zip(grads, seen.marks[2], strict=True)]
            key, slots, grads = (key, *given), list(compress(slots, given)), list(compress(grads, given))
            types, seen = set(map(type, grads)), self._look(key, slots)
        if not slots:
            return
        ats, which = self._ats(seen, ready)
        grads, ats, which = self._prepare(slots, grads, types, ats, which)
        calls = self._calls(key, seen, grads)
        self._run(calls, slots, ats, which, count)

    def apply_again(self, key: Hashable, places: list[int], count: Count) -> bool:
        """Updates the parameters of the last `apply` with this `key` by gradients at these
        addresses: for callers who know that each is a whole one of its parameter's dtype and size,
        without gaps, and that nothing has happened to the parameters. False, and nothing has
        changed, where what is prepared is for others."""
        seen = self._seen.get(key)
        if seen is None or not seen.trained or len(places) != len(seen.slots):
            return False
        calls = self._calls(key, seen, places)
        if calls:
            self._run(calls, seen.slots, *self._ats(seen, False), count)
        return bool(calls)

    def _run(self, calls: list[BatchPlan], slots: list[Slot], ats: list[Step], which: list[int], count: Count) -> None:
        rows = [self._row(at) for at in ats]
        carries: list[float] = []
        if self.carried:
            after = [self.hand_on(at) for at in ats]
            carries = [after[k] for k in which]
        run(calls, rows, which, count(slots, carries))

    def _count(self, slots: list[Slot], carries: list[float]) -> Iterable[object]:
        steps = [slot.step for slot in slots if slot.step is not None]
        after: Iterable[int] = [step + 1 for step in steps]
        if steps and steps.count(steps[0]) == len(steps):  # nearly always; one number for all is one place in memory
            after = repeat(steps[0] + 1)
        counted = map(setattr, slots if steps else [], repeat("step"), after)
        return chain(counted, map(setattr, slots, repeat("carry"), carries)) if carries else counted

    def _look(self, key: Hashable, slots: list[Slot]) -> Seen:
        """What there is to know about these parameters, nothing of which changes in most steps."""
        seen = self._seen.get(key)
        if seen is not None and seen.slots == slots and seen.marks == _marks(seen.params):
            return seen
        params = [slot.parameter for slot in slots]
        marks, groups = _marks(params), [slot.group for slot in slots]
        fixed: list[list[Any]] = [groups, [slot.real for slot in slots], [slot.own for slot in slots]]
        kinds, which = distinct([*fixed, *marks]) if slots else ([], [])
        if len(self._seen) >= self.steps.lists:
            self._seen.clear()
        self._seen[key] = seen = Seen(slots, params, marks, all(marks[2]), list(dict.fromkeys(groups)), kinds, which)
        return seen

    def _ats(self, seen: Seen, ready: bool) -> tuple[list[Step], list[int]]:
        """The distinct steps that are to be made, and which is each parameter's."""
        which, first = seen.which, seen.slots[0].step
        steps: list[int | None] = [] if first is None else [slot.step for slot in seen.slots]
        if self.carried:
            rows, which = distinct([which, steps or [None] * len(which), [slot.carry for slot in seen.slots]])
        elif steps.count(first) < len(steps):
            rows, which = distinct([which, steps, [self.first_carry] * len(which)])
        else:
            rows = [(k, first, self.first_carry) for k in range(len(seen.distinct))]
        found = []
        for k, step, carry in rows:
            number, real, own, lr_mult, wd_mult, _ = seen.distinct[k]
            before = self.global_step if step is None else step
            group, lr, wd = self._rates_of(number, before)
            found.append(Step(group, lr * lr_mult, wd * wd_mult, before + 1, carry, real, own, ready))
        return found, which

    def _calls(self, key: Hashable, seen: Seen, grads: list[Any]) -> list[BatchPlan]:
        """What updates these parameters by these gradients; nothing where gradients are given by
        their addresses, and nothing is prepared for such."""
        slots, rules = seen.slots, [self._rule_of(number) for number in seen.groups]
        weights = [slot.weight for slot in slots]
        if len(rules) == 1 or rules.count(rules[0]) == len(rules):  # nearly always
            return self._calls_of(key, *rules[0], slots, weights, grads)
        batches: dict[Hashable, list[int]] = {}
        of = dict(zip(seen.groups, rules, strict=True))
        for t, slot in enumerate(slots):
            rule, lazy = of[slot.group]
            batches.setdefault((id(rule), lazy), []).append(t)
        calls: list[BatchPlan] = []
        for batch in batches.values():
            number = slots[batch[0]].group
            its = ([column[t] for t in batch] for column in (slots, weights, grads))
            found = self._calls_of((key, number), *of[number], *its)
            if not found:
                return []
            calls += [(tuple(batch if part is None else [batch[t] for t in part]), plan) for part, plan in found]
        return calls

    def _calls_of(
        self, key: Hashable, rule: Rule, lazy: bool, slots: list[Slot], weights: list[Array], grads: list[Array]
    ) -> list[BatchPlan]:
        found = self.steps.find(key, rule, lazy, weights, grads, slots)
        if found is None and type(grads[0]) is int:
            return []
        if found is None:
            tensors = [self._tensor(slot, grad, rule) for slot, grad in zip(slots, grads, strict=True)]
            found = self.steps.make(key, rule, lazy, tensors, slots)
        return found

    def _tensor(self, slot: Slot, grad: Array, rule: Rule) -> Tensor:
        state_dtype.check(self.state_dtype, rule, type(self).__name__)
        rounding = None
        if self.state_dtype == "bfloat16":
            me: Any = proxy(self)  # what is planned for an optimizer must not keep it alive
            kind = type(self)
            update, seed = partial(kind._next_update, me, slot), partial(kind._rounding_seed, me)
            rounding = Rounding(slot.key, update, seed, slot.first)
        return Tensor(slot.place, slot.weight, grad, *self._states_of(slot, rule), rounding)

    def _next_update(self, slot: Slot) -> int:
        return (self.global_step if slot.step is None else slot.step) + 1

    def _rounding_seed(self) -> int:
        return self.seed or 0
