"""Optimizers that hold their parameters in groups, as MindSpore's and PyTorch's do: the state of
each parameter, and updates by the rules of the groups."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress, repeat
from typing import Any, ClassVar, NamedTuple
from weakref import proxy

import numpy as np

from mxopt import state_dtype
from mxopt.arguments import NamedArguments, check_kept
from mxopt.engine import Steps, Tensor, arrays
from mxopt.engine.rounding import Rounding
from mxopt.engine.steps import BatchPlan, distinct, run
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError, counted
from mxopt.optimizer.saving import Resumable
from mxopt.options import number
from mxopt.parameter import Parameter, written
from mxopt.rules.rule import Rule
from mxopt.state_dtype import StoredStates
from mxopt.typing import Array, Gradients, Plain

Count = Callable[[Sequence["Slot"], Iterable[int], Iterable[float]], Iterable[object]]


@dataclass(eq=False, slots=True)
class Slot:
    """One parameter of an optimizer, and its state.

    `group` is the number of its group. `step` counts its updates; None if the optimizer counts for
    all. `arrays` are its states by name, and "master", the float32 copy of a 16-bit weight, if
    there is one. `carry` is the number that some optimizers hand on from step to step. `given` is
    what the caller passed. `own` is the result of the optimizer's method `own`, `real` the type of
    its arithmetic, numpy.float32 or numpy.float64. Its states are saved under `key`; a slice of a
    parameter begins with the parameter's element number `first`.
    """

    name: Any  # a text, or a store's key
    place: str  # what errors call it
    group: int
    parameter: Parameter
    weight: Array
    carry: float = 0.0
    step: int | None = 0
    arrays: Plain = field(default_factory=dict)
    given: Any = None
    own: Any = None
    key: Any = None  # its name, unless it has another
    first: int = 0
    real: type[np.floating] = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.name if self.key is None else self.key
        self.real = np.float64 if self.weight.dtype.itemsize == 8 else np.float32


class Step(NamedTuple):
    """All that the hyper-parameters of one update of a parameter depend on.

    `lr` and `wd` are the group's, times the parameter's multipliers. `t` counts its updates, from
    1. `carry` is the number that the update before handed on. `real` is the type of the arithmetic,
    numpy.float32 or numpy.float64. `own` is the result of the optimizer's method `own`. With
    `ready` the gradient has been scaled and decayed already.
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
    """What was found out about some parameters: their multipliers, the numbers of their `groups`,
    the distinct `kinds` among them, and each one's kind."""

    slots: tuple[Slot, ...]
    params: list[Parameter]
    multipliers: tuple[list[float], list[float]]
    groups: list[int]
    kinds: list[tuple[Any, ...]]
    which: list[int]


def _for_each(which: list[int], values: list[Any]) -> Iterable[Any]:
    """The value of each parameter; endless if all share one, empty if there is none."""
    return [values[k] for k in which] if len(values) > 1 else repeat(values[0]) if values else ()


class GroupedOptimizer(NamedArguments, StoredStates, Resumable):
    """The base of all optimizers that hold their parameters in groups; a family subclasses it."""

    carried: ClassVar[str | None] = None  # the name of the number that each step hands on to the next, if any
    first_carry: ClassVar[float] = 0.0
    multi_precision: bool = False
    rescale_grad: float = 1.0  # gradients are multiplied by this first; a `Trainer` divides it by the batch size
    seed: int | None = None
    global_step: int = 0  # the number of steps, where slots don't count their own

    _slots: list[Slot]
    _seen: dict[Hashable, Seen]  # by the keys of `apply`
    _of_tensors = False  # whether some parameters are tensors, whose library is told of each step
    steps: Steps

    def check_state_dtype(self, asked: str) -> None:
        state_dtype.check(asked, None, type(self).__name__)

    def _prepare_anew(self) -> None:
        if hasattr(self, "steps"):
            self.steps.clear()

    @property
    def slots(self) -> list[Slot]:
        """The parameters and their states, in the order of gradients."""
        return self._slots

    def _hold(self, slots: list[Slot]) -> None:
        """Holds these parameters from now on."""
        for slot in slots:  # a copied tensor has memory of its own
            slot.weight, slot.parameter.held = slot.parameter.value, True
        self._slots, self._seen = slots, {}
        self._of_tensors = any(slot.parameter.lender is not None for slot in slots)

    def __setstate__(self, state: Plain) -> None:
        vars(self).update(state)
        self._hold(self._slots)

    # What a family defines.

    def __call__(self, gradients: Gradients, /) -> Any:
        """Updates all parameters in place by their gradients, in their order."""
        raise NotDefinedError

    def own(self, weight: Array) -> Any:
        """What else the hyper-parameters of a parameter depend on, besides rates and steps:
        anything hashable."""

    def uses_master(self, weight: Array) -> bool:
        """Whether a float32 copy of `weight` is updated in its place."""
        return bool(self.multi_precision and weight.dtype.itemsize == 2)

    def hand_on(self, at: Step) -> float:
        """The number that an update hands on to the parameter's next one, if `carried` names it."""
        return at.carry

    def _rule_of(self, group: int) -> tuple[Rule, bool]:
        """The rule of a group, and whether it leaves alone the rows that a row-sparse gradient
        lacks."""
        raise NotDefinedError

    def _rates_of(self, group: int, step: int) -> tuple[Any, float, float]:
        """A group, and its learning rate and weight decay at a step, counted from 0."""
        raise NotDefinedError

    def _states_of(self, slot: Slot, rule: Rule) -> tuple[tuple[Array, ...], Array]:
        """The arrays of a rule's states, and the master copy if there is one."""
        raise NotDefinedError

    def _hypers(self, at: Step) -> tuple[float, ...]:
        """All hyper-parameters, as the rule takes them."""
        raise NotDefinedError

    def _prepare(
        self, slots: list[Slot], grads: list[Array], types: set[type], ats: list[Step], which: list[int]
    ) -> tuple[list[Array], list[Step], list[int]]:
        """Prepares gradients, which are of these types, for the rule. Returns them, the distinct
        steps, and for each parameter the number of its step."""
        return grads, ats, which

    def _check_options(self) -> None:
        """Raises ArgumentError if an option has been set to what isn't allowed; called where a step
        has failed."""
        check_kept(self)

    # Updates.

    def _listed(self, gradients: object) -> list[Any]:
        """The gradients of a step as a list. Raises ArgumentError unless there is one for each
        parameter."""
        owner, n = type(self).__name__, len(self._slots)
        if not isinstance(gradients, tuple | list):
            one = ": one is (x,)" * hasattr(gradients, "shape")
            raise ArgumentTypeError(
                f"{owner}: gradients must be a tuple, one for each parameter, got {type(gradients).__name__}{one}"
            )
        if len(gradients) != n:
            raise ArgumentError(
                f"{owner}: got {counted(len(gradients), 'gradient')} for {counted(n, 'parameter')}; None stands for one"
                " that there isn't"
            )
        return list(gradients)

    def _gradients(self, gradients: object) -> list[Any]:
        """The gradients of a step as NumPy, CuPy or row-sparse arrays over their memory; None stays
        None."""
        found = self._listed(gradients)
        if set(map(type, found)) == {np.ndarray}:
            return found
        lent = arrays.lent_by(found)
        if lent is not None:
            return lent
        pairs = zip(found, self._slots, strict=True)
        return [g if g is None else arrays.as_gradient(g, f"{slot.place}, gradient") for g, slot in pairs]

    def _of_trained(self, grads: list[Array]) -> list[Array | None]:
        """The gradients, with None for parameters whose `requires_grad` is False."""
        trained = [slot.parameter.requires_grad for slot in self._slots]
        return grads if all(trained) else [g if yes else None for g, yes in zip(grads, trained, strict=True)]

    def _tell(self, gradients: Iterable[Any]) -> None:
        """Tells the library of parameters that are tensors that they have been written."""
        pairs = zip(self._slots, gradients, strict=True)
        written(s.parameter for s, grad in pairs if grad is not None and s.parameter.requires_grad)

    def apply(self, key: Hashable, slots: list[Slot], grads: list[Array], count: Count, ready: bool = False) -> None:
        """Updates parameters by their gradients, leaving out those whose gradient is None. Calls
        for the same parameters use the same `key`.

        `count(slots, steps, carries)` counts the update: it returns an iterator that calls
        functions of C. `steps` are the parameters' update counts, this update included, `carries`
        the numbers that they hand on. Raises ArrayError, and changes nothing, if a parameter can't
        be updated.
        """
        types = set(map(type, grads))
        if type(None) in types:
            given = [grad is not None for grad in grads]
            key, slots, grads = (key, *given), list(compress(slots, given)), list(compress(grads, given))
            types.remove(type(None))
        if not slots:
            return
        seen = self._look(key, slots)
        ats, which = self._ats(seen, ready)
        grads, ats, which = self._prepare(slots, grads, types, ats, which)
        self._run(self._calls(key, seen, grads), slots, ats, which, count)

    def apply_again(self, key: Hashable, places: Sequence[int], count: Count) -> bool:
        """Repeats the last `apply` with this `key`, with gradients at these addresses. The caller
        must know that each is contiguous, of its parameter's dtype and size, and that the
        parameters are where they were. Returns False, and changes nothing, if what is prepared
        doesn't fit."""
        seen = self._seen.get(key)
        if seen is None or len(places) != len(seen.slots):
            return False
        calls = self._calls(key, seen, places)
        if calls:
            self._run(calls, seen.slots, *self._ats(seen, False), count)
        return bool(calls)

    def _run(
        self, calls: list[BatchPlan], slots: Sequence[Slot], ats: list[Step], which: list[int], count: Count
    ) -> None:
        try:
            hypers, steps = [self._hypers(at) for at in ats], [at.t for at in ats]
            carries = [self.hand_on(at) for at in ats] if self.carried else []
            run(calls, hypers, which, count(slots, _for_each(which, steps), _for_each(which, carries)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            try:
                self._check_options()
            except ArgumentError as found:
                raise found from error
            raise

    def _look(self, key: Hashable, slots: list[Slot]) -> Seen:
        """What is known of these parameters; most steps change none of it."""
        seen = self._seen.get(key)
        if seen is not None and seen.slots != tuple(slots):
            seen = None
        params = [slot.parameter for slot in slots] if seen is None else seen.params
        multipliers = [p.lr_mult for p in params], [p.wd_mult for p in params]
        if seen is not None and seen.multipliers == multipliers:
            return seen
        for what, values in zip(("lr_mult", "wd_mult"), multipliers, strict=True):
            values[:] = [number(f"{slot.place}: its {what}", x) for slot, x in zip(slots, values, strict=True)]
        groups = [slot.group for slot in slots]
        fixed: list[list[Any]] = [groups, [slot.real for slot in slots], [slot.own for slot in slots]]
        kinds, which = distinct([*fixed, *multipliers])
        if len(self._seen) >= self.steps.lists:
            self._seen.clear()
        seen = Seen(tuple(slots), params, multipliers, list(dict.fromkeys(groups)), kinds, which)
        self._seen[key] = seen
        return seen

    def _ats(self, seen: Seen, ready: bool) -> tuple[list[Step], list[int]]:
        """The distinct steps, and for each parameter the number of its step."""
        slots, n, step, carry = seen.slots, len(seen.slots), seen.slots[0].step, seen.slots[0].carry
        if n == 1 or (not self.carried and (step is None or [slot.step for slot in slots].count(step) == n)):
            return [self._at(kind, step, carry, ready) for kind in seen.kinds], seen.which
        found, which = distinct([seen.which, [slot.step for slot in slots], [slot.carry for slot in slots]])
        return [self._at(seen.kinds[k], step, carry, ready) for k, step, carry in found], which

    def _at(self, kind: tuple[Any, ...], step: int | None, carry: float, ready: bool) -> Step:
        number, real, own, lr_mult, wd_mult = kind
        before = self.global_step if step is None else step
        group, lr, wd = self._rates_of(number, before)
        return Step(group, lr * lr_mult, wd * wd_mult, before + 1, carry, real, own, ready)

    def _calls(self, key: Hashable, seen: Seen, grads: Sequence[Array]) -> list[BatchPlan]:
        """The plans that update these parameters by these gradients. None of them if gradients are
        given by address, and nothing is prepared for that."""
        slots = seen.slots
        uses = [self._rule_of(number) for number in seen.groups]
        if len(uses) > 1:
            of = dict(zip(seen.groups, uses, strict=True))
            uses = uses[:1] if uses.count(uses[0]) == len(uses) else [of[slot.group] for slot in slots]
        if type(grads[0]) is int:
            return self.steps.find(key, uses, grads, grads, slots) or []
        found = self.steps.find(key, uses, [slot.weight for slot in slots], grads, slots)
        if found is None:
            pairs = zip(slots, grads, strict=True)
            tensors = [self._tensor(slot, grad, self._rule_of(slot.group)[0]) for slot, grad in pairs]
            found = self.steps.make(key, uses, tensors, slots)
        return found

    def _tensor(self, slot: Slot, grad: Array, rule: Rule) -> Tensor:
        state_dtype.check(self.state_dtype, rule, type(self).__name__)
        rounding = None
        if self.state_dtype == "bfloat16":
            me: Any = proxy(self)  # a plan must not keep its optimizer alive
            kind = type(self)
            update, seed = partial(kind._next_update, me, slot), partial(kind._rounding_seed, me)
            rounding = Rounding(slot.key, update, seed, slot.first)
        return Tensor(slot.place, slot.weight, grad, *self._states_of(slot, rule), rounding)

    def _next_update(self, slot: Slot) -> int:
        return (self.global_step if slot.step is None else slot.step) + 1

    def _rounding_seed(self) -> int:
        return self.seed or 0
