"""Steps: how every optimizer updates a list of tensors by a rule.

    calls = steps.find(...) or steps.make(...)   raises where one can't be updated, before any is
    kinds, which = distinct(columns)             what the hyper-parameters of each tensor depend on
    run(calls, [row(*kind) for kind in kinds], which, counted)

Tensors that one plan can keep go together: those on one device, of the same dtypes, without gaps in
their memory. Every other has a plan of its own, so that one which must be made anew at each step
doesn't cost the rest theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from mxopt.engine import aliases, arrays
from mxopt.engine.plan import Plan, Scalars
from mxopt.engine.plans import Plans
from mxopt.engine.stored import check_once
from mxopt.engine.tensor import Tensor
from mxopt.engine.uninterrupted import exhaust, tell, uninterrupted
from mxopt.rules.rule import Rule
from mxopt.typing import Array, State

PATTERNS = 8  # lists that an optimizer keeps prepared at least: alternating between so many costs nothing extra

Batch = tuple[int, ...] | None  # positions in a list; None for all of it
BatchPlan = tuple[Batch, Plan]


class Steps:
    """What is prepared for the last `lists` lists of tensors, each found again by a key.

    `states` are any objects, one for each tensor, that stay the same as long as the arrays of its
    states do.
    """

    def __init__(self, lists: int = PATTERNS) -> None:
        self.lists = lists
        self._known: dict[Hashable, tuple[list[Batch], Plans]] = {}
        self._changing = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """A copy starts empty: plans hold the addresses of one owner's states."""
        return Steps, (self.lists,)

    def clear(self) -> None:
        """Forgets all lists: the arrays of states have been exchanged."""
        self._known = {}

    def find(
        self,
        key: Hashable,
        rule: Rule,
        lazy: bool,
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
    ) -> list[BatchPlan] | None:
        """The calls made under `key`, bound to these arrays; None where there are none, or for
        arrays of other kinds. Gradients may be given by their addresses, as `NativePart.bind_at`
        takes them.

        `lazy`: leave the rows alone for which a row-sparse gradient has none, where the rule allows
        it.
        """
        batches, plans = self._known.get(key, (None, None))
        if batches is None or plans is None:
            return None
        calls: list[BatchPlan] = []
        for batch in batches:
            plan = plans.find(batch, rule, lazy, *_of(batch, weights, grads, states))
            if plan is None:
                return None
            calls.append((batch, plan))
        return calls

    def make(
        self, key: Hashable, rule: Rule, lazy: bool, tensors: Sequence[Tensor], states: Sequence[State]
    ) -> list[BatchPlan]:
        """The calls that update `tensors`, made or found again, and kept under `key`.

        Raises ArrayError where a tensor can't be updated; nothing has been changed then.
        """
        check_once(tensors)
        _, plans = self._known.get(key, (None, Plans(PATTERNS + 2 * len(tensors))))
        for tensor in tensors:
            tensor.grad = arrays.as_gradient(tensor.grad, f"{tensor.name}, grad")
        weights, grads = [tensor.weight for tensor in tensors], [tensor.grad for tensor in tensors]
        calls: list[BatchPlan] = []
        for batch in _batches(weights, grads):
            plan = plans.find(batch, rule, lazy, *_of(batch, weights, grads, states))
            calls.append((batch, plan or plans.make(batch, rule, lazy, *_of(batch, tensors, states))))
        if len(calls) > 1:
            taken = aliases.taken_by(tensors)
            for _, plan in calls:
                plan.forbid(taken)
            aliases.check(tensors, taken)
        with self._changing:
            self._known.pop(key, None)
            while len(self._known) >= self.lists:
                del self._known[next(iter(self._known))]
            self._known[key] = [batch for batch, _ in calls], plans
        return calls


def run(
    calls: Sequence[BatchPlan], hypers: Sequence[Scalars], which: Sequence[int], counted: Iterable[object] = ()
) -> None:
    """Updates tensor t of the list with the hyper-parameters `hypers[which[t]]`, and counts that:
    of all tensors, or of none where an exception of a signal handler comes first.

    `counted` does the counting: an iterator that calls functions of C, as `map(setattr, ...)` does.
    """
    found: list[Any] = []
    for batch, plan in calls:
        if batch is None:
            found.append(plan.prepare(hypers, which))
        else:
            used = {row: k for k, row in enumerate(dict.fromkeys(which[t] for t in batch))}
            found.append(plan.prepare([hypers[row] for row in used], [used[which[t]] for t in batch]))
    done: list[bool] = []
    counted = chain(counted, map(done.append, [True]))
    try:
        if None not in found:
            exhaust(chain(map(partial.__call__, chain.from_iterable(found)), counted))
        else:
            uninterrupted(partial(_finish, [plan for _, plan in calls], counted))
    except BaseException as error:
        tell(error, len(which) if done else 0, len(which))
        raise


def _finish(plans: Iterable[Plan], counted: Iterable[object]) -> None:
    for plan in plans:
        plan.finish()
    exhaust(counted)


def distinct(columns: Sequence[Sequence[Hashable]]) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The distinct rows of a table, in the order of their first, and for each row which of them it
    is."""
    length = len(columns[0])
    if length == 1 or all(column.count(column[0]) == length for column in columns):  # nearly always, and so fastest
        return [tuple([column[0] for column in columns])], [0] * length
    rows = list(zip(*columns, strict=True))
    number = {row: k for k, row in enumerate(dict.fromkeys(rows))}
    return list(number), [number[row] for row in rows]


def _of(batch: Batch, *columns: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    return columns if batch is None else tuple([column[t] for t in batch] for column in columns)


def _batches(weights: Sequence[Array], grads: Sequence[Array]) -> list[Batch]:
    together: dict[Hashable, list[int]] = {}
    for t, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        plain = all(arrays.is_array(x) and arrays.is_plain(x) for x in (weight, grad))
        key = (arrays.place_of(weight), weight.dtype, grad.dtype) if plain else t
        together.setdefault(key, []).append(t)
    return [None] if len(together) == 1 else [tuple(batch) for batch in together.values()]
