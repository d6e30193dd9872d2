"""Optimizers whose update is a rule: all of mxopt's own.

A subclass names its rule (`rule`) and computes the rule's scalars at update t (`scalars`).
Everything else is here: states, master copies, row-sparse gradients, lists, and the plans that make
later updates fast.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import proxy, ref

import numpy as np

from mxopt import settings, state_dtype
from mxopt.engine import Plan, Steps, Tensor, arrays, engine_in_use
from mxopt.engine.rounding import Rounding
from mxopt.engine.steps import BatchPlan, distinct, run
from mxopt.engine.uninterrupted import exhaust, tell
from mxopt.errors import ArgumentError, ArgumentTypeError, ArrayError, NotDefinedError, counted
from mxopt.optimizer.base import LISTS, Index, Optimizer
from mxopt.optimizer.options import OptionsAndRate
from mxopt.options import Unpack
from mxopt.rules.rule import COMMON, Rule
from mxopt.typing import Array, Plain, State

_NO_PLAN = (None, None)


class RuleOptimizer(Optimizer):
    """An optimizer made of a rule.

    A method that a subclass overrides is called for every tensor. An overridden `update`,
    `update_multi_precision` or `_update_count` gets one tensor at a time, unless the subclass asks
    for lists by setting `aggregate_num`. As in MXNet, an `update_multi_precision` of SGD, LARS and
    LAMB gets lists anyway.
    """

    seed: int | None
    lazy_update: bool = False
    inner_first: ClassVar[bool] = False  # MXNet's order of (inner state, master copy) in some optimizers
    aggregates: ClassVar[bool] = False  # whether MXNet's class takes lists
    overridable: ClassVar[tuple[str, ...]] = (*Optimizer.overridable, "scalars", "groups", "new_state")

    def __init__(self, **base: Unpack[OptionsAndRate]) -> None:
        super().__init__(**base)
        one_by_one = {"update", "_update_count"} | (set() if self.aggregates else {"update_multi_precision"})
        self.aggregate_num: int = 0 if self.overridden & one_by_one else settings.aggregation_size()
        self._plans: dict[Index, tuple[Plan, State]] = {}  # for single tensors, with the state each was made for
        self._lists = Steps()
        self._weights: dict[Index, ref[np.ndarray]] = {}  # the array that each parameter's plan was made for

    def __getstate__(self) -> Plain:
        return {**self.__dict__, "_plans": {}, "_weights": {}}  # a copy has arrays of its own

    def _prepare_anew(self) -> None:
        self._plans, self._lists = {}, Steps()

    # What a subclass defines.

    if TYPE_CHECKING:
        rule: Any  # a Rule, or a property that gives one
    else:

        @property
        def rule(self) -> Rule:
            """The rule; it may depend on the hyper-parameters."""
            raise NotDefinedError

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        """The learning rate that the rule takes at update `t`, from 1, then the rule's own
        hyper-parameters in its order."""
        raise NotDefinedError

    @property
    def elementwise(self) -> bool:
        return self.rule.reduction is None and self.rowwise

    @property
    def rowwise(self) -> bool:
        seen_whole = self.overridden & {"update", "update_multi_precision", "create_state", "new_state"}
        return not (seen_whole or self.rule.layerwise)

    # States.

    def state_kind(self) -> Plain:
        return {**super().state_kind(), "rule": self.rule.name, "state_dtype": self.state_dtype}

    def create_state(self, index: Index, weight: Array) -> State:
        """Zeros for each state of the rule: None, an array, or a tuple of arrays, as there are
        none, one or several."""
        weight = arrays.as_array(weight, self.called(index))
        states = tuple(self.new_state(name, weight) for name in self.rule.states)
        return states if len(states) > 1 else states[0] if states else None

    def new_state(self, name: str, weight: Array) -> Array:
        """The state `name` of a new weight."""
        dtype = None
        if self.state_dtype is not None and name in self.rule.states:
            self.check_state_dtype(self.state_dtype)
            dtype = state_dtype.dtype_of(self.state_dtype, weight)
        return arrays.zeros(self.rule.state_shape(name, weight.shape), weight, dtype)

    def check_state_dtype(self, asked: str) -> None:
        rule = None
        with suppress(AttributeError):  # the rule needs options that aren't set yet: new_state checks again
            rule = self.rule
        state_dtype.check(asked, rule, type(self).__name__)

    def _rounding(self, index: Index) -> Rounding | None:
        """How the bfloat16 arrays of a parameter are rounded; None means to nearest."""
        return self.random(index) if self.state_dtype == "bfloat16" else None

    def random(self, index: Index) -> Rounding:
        """What determines the random bits of a parameter's updates."""
        key, first = self.parts.get(index, (index, 0))
        me: Any = proxy(self)  # a plan must not keep its optimizer alive
        kind = type(self)
        return Rounding(key, partial(kind._updates, me, index), partial(kind.rounding_seed, me), first)

    def _updates(self, index: Index) -> int:
        return int(self._index_update_count[index])

    def state_arrays(self, state: State) -> tuple[Array, ...]:
        """The arrays of a state made by `create_state`, in the rule's order."""
        return () if state is None else tuple(state) if isinstance(state, tuple | list) else (state,)

    def join(self, inner: State, master: Array) -> State:
        return (inner, master) if self.inner_first else (master, inner)

    def split(self, state: State) -> tuple[State, Array]:
        first, second = state
        return (first, second) if self.inner_first else (second, first)

    # Updates.

    def update(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        """Updates one weight, or lists of them, in place.

        Parameters
        ----------
        index : int or str, or a list of them
            Which parameter it is: for its multipliers and its update count.
        weight : array, or a list
            float16, bfloat16, float32 or float64, of any shape; changed in place.
        grad : array or RowSparse, or a list
            Of the same shape.
        state : as `create_state` returned it, or a list; changed in place.

        Raises
        ------
        ArrayError
            An array can't be updated; nothing has been changed then.
        """
        self._update(index, weight, grad, state, False)

    def update_multi_precision(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        """Like `update`, with states of `create_state_multi_precision`."""
        if self.overridden and "update" in self.overridden:
            super().update_multi_precision(index, weight, grad, state)
        else:
            self._update(index, weight, grad, state, self.multi_precision)

    def _update(self, index: Any, weight: Array, grad: Array, state: State, masters: bool) -> None:
        if isinstance(index, LISTS):
            self._update_list(index, weight, grad, state, masters)
            return
        plan, before = self._plans.get(index, _NO_PLAN)
        rule, lazy = self.rule, self.lazy_update
        fits = (
            plan is not None
            and state is before
            and rule is plan.rule
            and lazy == plan.lazy
            and plan.engine == engine_in_use()
            and plan.bind_one(weight, grad)
        )
        if plan is None or not fits:
            # `tensors` must live until the call ends: it owns what gradients were converted to.
            tensors = self._tensors((index,), (weight,), (grad,), (state,), masters)
            plan = Plan(engine_in_use(), rule, tensors, lazy)
            if plan.lasting:
                self._plans[index] = (plan, state)
                self._note_weights((index,), (weight,))
        part = plan.part
        if not part.direct:
            self._apply((index,), [(None, plan)])
        else:
            counts, latest, clip = self._index_update_count, self.num_update, self.clip_gradient
            before = counts.get(index)
            row: tuple[float, ...] = ()
            try:
                self._update_count(index)
                own = self.scalars(index, self._get_lr(index), counts[index])
                bound = clip if clip and clip > 0 else math.inf
                row = (own[0], self._get_wd(index), self.rescale_grad, bound, *own[1:])
                call: Any = part.prepare_one(row)
                argument: Any = part.address
                if self.counts_more and (more := self._also_counted((index,))):
                    call, argument = exhaust, chain(map(call, [argument]), more)
            except BaseException as error:
                # Python runs signal handlers after calls and at backward jumps. So none can raise
                # here before the count is restored, nor between the end of `prepare_one` and that
                # of `call`.
                self.num_update = latest
                if before is not None:
                    counts[index] = before
                else:
                    counts.pop(index, None)
                self._check_numbers([row], error)
                raise
            call(argument)
        if not fits:  # a tensor of PyTorch's never does
            arrays.tell_autograd_of(weight)

    def _apply(self, indices: tuple[Index, ...], calls: list[BatchPlan]) -> None:
        """Makes an update and counts it; if an exception comes first, it does neither."""
        counts: dict[Index, Any] = self._index_update_count
        latest, done = self.num_update, list[bool]()
        before = list(map(counts.get, indices))
        taken_back: Iterable[object] = map(counts.__setitem__, indices, before)
        if not all(before):
            new = [index for index, count in zip(indices, before, strict=True) if count is None]
            taken_back = chain(taken_back, map(counts.pop, new))
        hypers: list[tuple[float, ...]] = []
        try:
            self._update_count(indices if len(indices) > 1 else indices[0])
            hypers, which = self._hypers(indices)
            run(calls, hypers, which, self._also_counted(indices) if self.counts_more else (), done)
        except BaseException as error:
            if not done:
                self.num_update: int = latest
                exhaust(taken_back)
                self._check_numbers(hypers, error)
                tell(error, 0, len(indices))
            raise

    def _check_numbers(self, hypers: Iterable[tuple[float, ...]], error: BaseException) -> None:
        """Raises ArgumentError if `error` was caused by a hyper-parameter that has been set to what
        the constructor refuses, ArgumentTypeError if it is no number, as one that a subclass's
        `scalars` returned."""
        self.explain(error)
        given, whose = self.rule.hypers[: self.rule.given], type(self).__name__
        for each in hypers if isinstance(error, TypeError | ValueError | struct.error) else ():
            for name, value in zip(given, each, strict=False):
                if not isinstance(value, Real):
                    raise ArgumentTypeError(f"{whose}: its {name} must be a number, got {value!r}") from error
            if len(each) and len(each) != len(given):
                own = "lr", *given[len(COMMON) :]
                raise ArgumentTypeError(
                    f"{whose}.scalars must return {counted(len(own), 'number')} ({', '.join(own)}), got"
                    f" {len(each) - len(COMMON) + 1}"
                ) from error

    counts_more: ClassVar[bool] = False  # whether `_also_counted` does anything

    def _also_counted(self, indices: Sequence[Index]) -> Iterable[object]:
        """What a subclass records of an update besides its count: an iterator that calls functions
        of C, or ()."""
        return ()

    def _update_list(
        self,
        indices: Sequence[Index],
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
        masters: bool,
    ) -> None:
        if not len(indices) == len(weights) == len(grads) == len(states):
            raise ArrayError(
                f"update: lists of {counted(len(indices), 'index')}, {counted(len(weights), 'weight')},"
                f" {counted(len(grads), 'gradient')} and {counted(len(states), 'state')}"
            )
        if not indices:
            return
        if len(indices) == 1:  # the path of single tensors takes a quarter of the time
            self._update(indices[0], weights[0], grads[0], states[0], masters)
            return
        if "_update_count" in self.overridden:
            self._one_by_one(indices, weights, grads, states, masters)
            return
        key = tuple(indices)
        uses = [(self.rule, self.lazy_update)]
        calls = self._lists.find(key, uses, weights, grads, states)
        fits = calls is not None
        if calls is None:
            tensors = self._tensors(key, weights, grads, states, masters)
            if len(set(key)) < len(key):  # a parameter is listed twice: its updates must follow each other
                for tensor in tensors:
                    tensor.check(uses[0][0])
                self._one_by_one(indices, weights, grads, states, masters)
                return
            self._lists.tensors = 2 * len(self._index_update_count)  # a server has many lists, of all keys together
            calls = self._lists.make(key, uses, tensors, states)
            self._note_weights(key, weights)
        self._apply(key, calls)
        if not fits:
            arrays.tell_autograd_of(weights)

    def _one_by_one(
        self,
        indices: Sequence[Index],
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
        masters: bool,
    ) -> None:
        each = zip(indices, weights, grads, states, strict=True)
        self.in_turn(self._update, [(*arguments, masters) for arguments in each])

    def _hypers(self, indices: tuple[Index, ...]) -> tuple[list[tuple[float, ...]], list[int]]:
        """The distinct hyper-parameters, and for each parameter the number of its own."""
        clip = self.clip_gradient
        common = self.rescale_grad, clip if clip and clip > 0 else math.inf
        counts = list(map(self._index_update_count.__getitem__, indices))
        theirs = self.overridden
        lrs = [self._get_lr(index) for index in indices] if "_get_lr" in theirs else self._get_lrs(indices)
        wds = [self._get_wd(index) for index in indices] if "_get_wd" in theirs else self._get_wds(indices)
        each = indices if "scalars" in theirs and "groups" not in theirs else self.groups(indices)
        kinds, which = distinct([lrs, wds, counts, each] if each else [lrs, wds, counts])
        found = []
        for number, (lr, wd, t, *_) in enumerate(kinds):
            own = self.scalars(indices[which.index(number)], lr, t)
            found.append((own[0], wd, *common, *own[1:]))
        return found, which

    def groups(self, indices: Sequence[Index]) -> Sequence[Hashable]:
        """For each parameter what else its scalars depend on, besides learning rate, weight decay
        and count; empty if nothing."""
        return ()

    def _note_weights(self, indices: Sequence[Index], weights: Sequence[Array]) -> None:
        """Remembers which arrays are weights, so that one isn't taken for a gradient."""
        for index, weight in zip(indices, weights, strict=True):
            if type(weight) is np.ndarray:
                self._weights[index] = ref(weight)

    def _tensors(
        self,
        indices: Sequence[Index],
        weights: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
        masters: bool,
    ) -> list[Tensor]:
        tensors = []
        for index, weight, grad, state in zip(indices, weights, grads, states, strict=True):
            name = self.called(index)
            before = self._weights.get(index)
            check_places(name, grad, weight, before is not None and grad is before() is not weight)
            weight, master = arrays.as_array(weight, f"{name}, weight"), None
            try:
                if masters and weight.dtype.itemsize == 2:
                    state, master = self.split(state)
                    if not arrays.is_array(arrays.data_of(master)):
                        raise TypeError
                state = self.state_arrays(state)
            except (TypeError, ValueError):
                made = "create_state_multi_precision" if masters else "create_state"
                raise ArrayError(f"{name}: needs a state made by {made}, got {state!r:.200}") from None
            tensors.append(Tensor(name, weight, grad, state, master, self._rounding(index)))
        return tensors


def check_places(name: str, grad: Array, weight: Array, was_weight: bool = False) -> None:
    """Raises ArgumentError if gradient and weight are visibly swapped: the gradient is a parameter,
    or it is the array that was updated so far (`was_weight`)."""
    is_parameter = arrays.is_parameter(grad) and not arrays.is_parameter(weight)
    if is_parameter or was_weight:
        seen = "a parameter, and the weight is none" if is_parameter else "what has been its weight so far"
        raise ArgumentError(f"{name}: the gradient is {seen}: {arrays.ORDER}")
