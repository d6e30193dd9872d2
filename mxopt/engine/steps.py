"""Steps: how every optimizer updates a list of tensors by a rule.

    calls = steps.find(...) or steps.make(...)   raises before any tensor has been updated
    kinds, which = distinct(columns)             what the hyper-parameters of each tensor depend on
    run(calls, [hypers(*kind) for kind in kinds], which, counted)

Tensors of one rule, on one device, of the same dtypes and contiguous, share a plan. Every other
tensor has its own, because some of these plans must be made again at each step, and the rest
shouldn't.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from mxopt.engine import aliases, arrays
from mxopt.engine.choice import engine_in_use
from mxopt.engine.plan import Plan
from mxopt.engine.stored import check_once
from mxopt.engine.tensor import Tensor
from mxopt.engine.uninterrupted import exhaust, tell, uninterrupted
from mxopt.rules.rule import Rule
from mxopt.typing import Array, Hypers, State

PATTERNS = 8  # lists that an optimizer keeps prepared at least, so that alternating between them costs nothing

Batch = tuple[int, ...] | None  # positions in a list; None means all of it
BatchPlan = tuple[Batch, Plan]
Use = tuple[Rule, bool]  # a rule, and whether it may leave alone the rows that a row-sparse gradient lacks


@dataclass(eq=False, slots=True)
class _List:
    """What is prepared for one list of tensors: the calls that update it, empty if they can't serve
    again, and the plans of these and other batches."""

    uses: list[Use]
    states: tuple[State, ...]
    calls: list[BatchPlan]
    plans: dict[Batch, Plan]

    def has(self, states: Sequence[State]) -> bool:
        return len(states) == len(self.states) and all(map(operator.is_, states, self.states))


class Steps:
    """Keeps what is prepared for the last `lists` lists of tensors, by key, and for more of them
    while all have at most `tensors` tensors together.

    `uses` are the rules of the tensors, or one rule for all. `states` has one object for each
    tensor, which stays the same for as long as the arrays of its states do. Passing the same tuple
    again makes the comparison free.
    """

    def __init__(self, lists: int = PATTERNS) -> None:
        self.lists: int = lists
        self.tensors: int = 0
        self._known: dict[Hashable, _List] = {}
        self._changing = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """A copy starts empty: plans hold the addresses of one owner's states."""
        return Steps, (self.lists,)

    def clear(self) -> None:
        """Forgets all lists; call it when arrays of states were replaced."""
        self._known = {}

    def find(
        self,
        key: Hashable,
        uses: list[Use],
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
    ) -> list[BatchPlan] | None:
        """The calls kept under `key`, bound to these arrays; None if there are none, or if they are
        for other arrays. Gradients may be given by address, as to `NativePart.bind_at`."""
        known = self._known.get(key)
        if known is None or known.uses != uses or not (states is known.states or known.has(states)):
            return None
        for batch, plan in known.calls:
            if not _serves(plan, batch, weights, grads):
                return None
        return known.calls or None

    def make(
        self, key: Hashable, uses: list[Use], tensors: Sequence[Tensor], states: Sequence[State]
    ) -> list[BatchPlan]:
        """Makes the calls that update `tensors`, and keeps them under `key`.

        Raises ArrayError if a tensor can't be updated. Then nothing has been changed.
        """
        check_once(tensors)
        known = self._known.get(key)
        plans = known.plans if known is not None and known.has(states) else {}
        for tensor in tensors:
            tensor.grad = arrays.as_gradient(tensor.grad, f"{tensor.name}, grad")
        weights, grads = [tensor.weight for tensor in tensors], [tensor.grad for tensor in tensors]
        calls: list[BatchPlan] = []
        each = uses * len(tensors) if len(uses) == 1 else uses
        for batch in _batches(each, weights, grads):
            rule, lazy = each[batch[0] if batch else 0]
            plan = plans.get(batch)
            same = plan is not None and plan.rule is rule and plan.lazy == lazy
            if plan is None or not same or not _serves(plan, batch, weights, grads):
                mine = tensors if batch is None else [tensors[t] for t in batch]
                plan = Plan(engine_in_use(), rule, mine, lazy)
            calls.append((batch, plan))
        if len(calls) > 1:
            taken = aliases.taken_by(tensors)
            for _, plan in calls:
                plan.forbid(taken)
            aliases.check(tensors, taken)
        lasting = {batch: plan for batch, plan in calls if plan.lasting}
        others = [(batch, plan) for batch, plan in plans.items() if batch not in lasting]
        kept = dict([*others[-PATTERNS - len(tensors) :], *lasting.items()])
        with self._changing:
            self._known.pop(key, None)
            while len(self._known) >= self.lists and self._size() + len(tensors) > self.tensors:
                del self._known[next(iter(self._known))]
            self._known[key] = _List(list(uses), tuple(states), calls if len(lasting) == len(calls) else [], kept)
        return calls

    def _size(self) -> int:
        return sum(len(known.states) for known in self._known.values())


def _serves(plan: Plan, batch: Batch, weights: Sequence[Array], grads: Sequence[Array]) -> bool:
    """Binds a plan to a batch of these arrays; False if it can't update them."""
    if plan.engine != engine_in_use():
        return False
    if batch is None:
        return plan.bind(weights, grads)
    return plan.bind([weights[t] for t in batch], [grads[t] for t in batch])


def run(
    calls: Sequence[BatchPlan],
    hypers: Sequence[Hypers],
    which: Sequence[int],
    counted: Iterable[object] = (),
    done: list[bool] | None = None,
) -> None:
    """Updates each tensor t of the list with the hyper-parameters `hypers[which[t]]`, and counts
    that. If a signal handler raises, either all tensors have been updated and counted, or none.

    `counted` does the counting: an iterator that calls functions of C, as `map(setattr, ...)` does.
    `done` gets an element once both are done, which tells a caller whether an exception came before
    or after the update.
    """
    jobs: list[Iterable[object] | None] = []
    for batch, plan in calls:
        if batch is None:
            jobs += plan.prepare(hypers, which)
        else:
            used = {r: k for k, r in enumerate(dict.fromkeys(which[t] for t in batch))}
            jobs += plan.prepare([hypers[r] for r in used], [used[which[t]] for t in batch])
    done = [] if done is None else done
    noted = map(done.append, (True,))
    try:
        if None in jobs:
            uninterrupted(partial(_finish, [plan for _, plan in calls], chain(counted, noted)))
        else:
            made: Any = jobs
            exhaust(chain(counted, *made, noted))  # in this order: what counts has just been looked at
    except BaseException as error:
        tell(error, len(which) if done else 0, len(which))
        raise


def _finish(plans: Iterable[Plan], counted: Iterable[object]) -> None:
    for plan in plans:
        plan.finish()
    exhaust(counted)


def distinct(columns: Sequence[Sequence[Hashable]]) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The distinct tuples of what the columns have at one place, in order of first appearance, and
    for each place the number of its tuple."""
    length = len(columns[0])
    for column in columns:
        if column.count(column[0]) != length:
            break
    else:  # nearly always: all are equal
        return [tuple([column[0] for column in columns])], [0] * length
    found = list(zip(*columns, strict=True))
    number = {each: k for k, each in enumerate(dict.fromkeys(found))}
    return list(number), [number[each] for each in found]


def _batches(uses: Sequence[Use], weights: Sequence[Array], grads: Sequence[Array]) -> list[Batch]:
    together: dict[Any, list[int]] = {}
    for t, ((rule, lazy), weight, grad) in enumerate(zip(uses, weights, grads, strict=True)):
        plain = all(arrays.is_array(x) and arrays.is_plain(x) for x in (weight, grad))
        key = (id(rule), lazy, arrays.place_of(weight), weight.dtype, grad.dtype) if plain else t
        together.setdefault(key, []).append(t)
    return [None] if len(together) == 1 else [tuple(batch) for batch in together.values()]
