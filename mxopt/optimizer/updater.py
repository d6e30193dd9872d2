"""The updater: an optimizer together with the states of all weights."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mxopt.clipping import Guard
from mxopt.engine import arrays
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, ArgumentTypeError, ArrayError, ArrayTypeError, counted
from mxopt.optimizer.base import LISTS, Index, Optimizer
from mxopt.optimizer.ruled import RuleOptimizer, check_places
from mxopt.optimizer.states import Described, Loaded, check, described, dump, load, take
from mxopt.optimizer.sums import Sums
from mxopt.state_dtype import converted
from mxopt.typing import AnyArray, Array, Arrays, Gradients, State

UPDATES = "update", "update_multi_precision"  # the methods that get lists where `aggregate_num` asks for them

_requires_grad = operator.attrgetter("requires_grad")


class Updater:
    """Updates weights in place by gradients, as `mxnet.optimizer.Updater`: `updater(index, grad,
    weight)`.

    Parameters
    ----------
    optimizer : Optimizer
    skip_nonfinite : bool
        Skip a call if one of its gradients is NaN or infinite: no weight, no state and no count
        changes.
    accumulate : int
        Update an index at every `accumulate`-th call, by the sum of the gradients. The other calls
        only add to the sum, in float32 at least. Set `rescale_grad` if you want a mean. Saved
        states contain the sums.

    Raises
    ------
    ArgumentError
        `accumulate` isn't a whole number above 0, or a method of an optimizer was replaced on the
        object, not in a class.

    Attributes
    ----------
    optimizer : Optimizer
    states : dict
        The state of each index, made at its first update.
    states_synced : dict
        Whether a state is known to be on its weight's device.
    """

    optimizer: Optimizer

    def __init__(self, optimizer: Optimizer, *, skip_nonfinite: bool = False, accumulate: int = 1) -> None:
        _check_methods(optimizer)
        sums = Sums(accumulate)
        self._sums = sums if accumulate > 1 else None
        self.optimizer = optimizer
        self._guard = Guard(skip_nonfinite=True) if skip_nonfinite else None
        self.states: dict[Index, State] = {}
        self.states_synced: dict[Index, bool] = {}
        self._parameters: dict[Index, Described] = {}  # the parameters that the states belong to
        self._fitting: dict[Index, tuple[Any, Any]] = {}  # tensors' shapes and dtypes that their states fit
        self._converts = False  # whether loaded states are of another `state_dtype`
        self.aggregate_updates: bool = optimizer.aggregate_num > 0

    @property
    def skipped(self) -> int:
        """The number of calls that `skip_nonfinite` has skipped."""
        return 0 if self._guard is None else self._guard.skipped

    def __call__(
        self,
        index: Index | bytes | Sequence[Index | bytes],
        grad: AnyArray | Gradients | None,
        weight: Arrays,
    ) -> None:
        """Updates one weight, or lists of them, in place.

        Parameters
        ----------
        index : int or str, or a list of them
        grad : array or RowSparse, or a list
        weight : array, or a list; changed in place

        The order is MXNet's; with `updater(0, weight=w, grad=g)` you can't swap them.

        Raises
        ------
        ArrayError
            The arrays can't be updated. Then no weight and no count has been changed.
        ArgumentError
            The gradient is a parameter and the weight isn't. Then nothing has been changed.
        """
        if self._sums is not None:
            self._accumulate(index, grad, weight)
            return
        if isinstance(index, LISTS):
            self._update_list(index, grad, weight)
            return
        own = self.optimizer.overridden
        if own and self.aggregate_updates and not own.isdisjoint(UPDATES):
            self._update_list([index], [grad], [weight])  # as in MXNet, who asks for lists gets nothing else
            return
        key: Any = index.decode() if type(index) is bytes else index  # MXNet's kvstore passes strings so
        try:
            known = self.states_synced.get(key)
        except TypeError:
            raise _no_index(key) from None
        if not known and arrays.is_tensor(weight):
            self._update_tensors((key,), (grad,), (weight,), self._update_one)
            return
        if self._guard is not None and self._guard((grad,), [f"{self.optimizer.called(key)}, grad"]) is None:
            return
        new = () if known else self._prepare((key,), (weight,))
        try:
            self.optimizer.update_multi_precision(key, weight, grad, self.states[key])
        except BaseException as error:
            self._forget(new)
            self.optimizer.explain(error)
            raise

    def _accumulate(self, index: Any, grad: Array, weight: Array) -> None:
        """Adds gradients to their sums, and updates by the sums that are complete."""
        assert self._sums is not None
        indices, grads, weights = (index, grad, weight) if isinstance(index, LISTS) else ([index], [grad], [weight])
        _check_lengths(indices, grads, weights)
        given = []
        for each, grad, weight in zip(indices, grads, weights, strict=True):
            try:
                hash(each)
            except TypeError:
                raise _no_index(each) from None
            if grad is not None or not arrays.is_tensor(weight):
                given.append((each.decode() if type(each) is bytes else each, grad, weight))
        uninterrupted(partial(self._sums.add, given, self._update_list))

    def _update_tensors(
        self, indices: Sequence[Index], grads: Sequence[Array], weights: Sequence[Array], update: Callable[..., None]
    ) -> None:
        """Updates the tensors of PyTorch that have a gradient. Their states never count as known,
        so the path of arrays needn't look for tensors."""
        trained = [each for each in zip(indices, grads, weights, strict=True) if each[1] is not None]
        if not trained:
            return
        indices, grads, weights = map(list, zip(*trained, strict=True))
        given, held = arrays.lent_by(grads), arrays.lent_by(weights)
        if given is None or held is None or any(map(_requires_grad, grads)):
            names = list(map(self.optimizer.called, indices))
            for each in zip(names, grads, weights, strict=True):
                check_places(*each)
            given = [arrays.as_gradient(grad, name) for grad, name in zip(grads, names, strict=True)]
            held = [arrays.as_array(weight, name) for weight, name in zip(weights, names, strict=True)]
        kinds = {index: (array.shape, array.dtype) for index, array in zip(indices, held, strict=True)}
        fitting = [index for index, kind in kinds.items() if self._fitting.get(index) == kind]
        self.states_synced.update(dict.fromkeys(fitting, True))
        try:
            update(indices, given, held)
            self._fitting.update(kinds)
        finally:
            for index, weight in zip(indices, weights, strict=True):
                if arrays.is_tensor(weight):
                    self.states_synced.pop(index, None)
        arrays.tell_autograd(weights)

    def _update_one(self, indices: Sequence[Index], grads: Sequence[Array], weights: Sequence[Array]) -> None:
        self(indices[0], grads[0], weights[0])

    def _update_list(self, indices: Any, grads: Any, weights: Any) -> None:
        _check_lengths(indices, grads, weights)
        if bytes in set(map(type, indices)):
            indices = [index.decode() if type(index) is bytes else index for index in indices]
        try:
            known = all(map(self.states_synced.get, indices))
        except TypeError:
            raise _no_index(next(index for index in indices if not isinstance(index, Hashable))) from None
        if not known and any(map(arrays.is_tensor, weights)):
            self._update_tensors(indices, grads, weights, self._update_list)
            return
        if (
            self._guard is not None
            and self._guard(grads, [f"{self.optimizer.called(i)}, grad" for i in indices]) is None
        ):
            return
        new = () if known else self._prepare(indices, weights)
        states = list(map(self.states.__getitem__, indices))
        update, size = self.optimizer.update_multi_precision, self.optimizer.aggregate_num
        try:
            if not self.aggregate_updates:
                self.optimizer.in_turn(update, list(zip(indices, weights, grads, states, strict=True)))
                return
            if len(indices) <= size:
                update(indices, weights, grads, states)
                return
            parts = [slice(first, first + size) for first in range(0, len(indices), size)]
            self.optimizer.in_turn(update, [(indices[p], weights[p], grads[p], states[p]) for p in parts])
        except BaseException as error:
            self._forget(new)
            self.optimizer.explain(error)
            raise

    def _prepare(self, indices: Sequence[Index], weights: Sequence[Array]) -> list[Index]:
        """Makes the states of new indices, and returns these indices; moves loaded states to their
        weights' devices."""
        new: list[Index] = []
        try:
            for index, weight in zip(indices, weights, strict=True):
                if index not in self.states:
                    if index not in self.optimizer.parts:
                        _check_index(index)
                    new.append(index)
                    self.states[index] = self.optimizer.create_state_multi_precision(index, weight)
                    self._parameters[index] = described(arrays.as_array(weight, self.optimizer.called(index)))
                elif not self.states_synced.get(index):
                    weight = arrays.as_array(weight, self.optimizer.called(index))
                    check(index, self._parameters.get(index, Described()), weight)
                    self._parameters[index] = described(weight)
                    if self._converts:
                        made = self.optimizer.create_state_multi_precision(index, weight)
                        self.states[index] = converted(self.states[index], made)
                    self.states[index] = self.sync_state_context(self.states[index], weight)
                self.states_synced[index] = True
        except BaseException as error:
            self._forget(new)
            self.optimizer.explain(error)
            raise
        return new

    def _forget(self, new: Iterable[Index]) -> None:
        """Removes the states that were made for a refused update: their weights may be unusable."""
        for index in new:
            if not self.optimizer.has_updated(index):
                for kept in (self.states, self.states_synced, self._parameters, self._fitting):
                    kept.pop(index, None)

    def refresh(self, index: Index, weight: Array) -> None:
        """Copies a 16-bit weight that was changed from outside to its master copy, if it has
        one."""
        if index in self.states and self.optimizer.uses_master(weight):
            _, master = self.optimizer.split(self.states[index])
            master[...] = arrays.to_device_of(weight, master)

    def sync_state_context(self, state: State, context: Any) -> Any:
        """`state` on the device of the array `context`, nested alike; arrays that are there already
        aren't copied."""
        if isinstance(state, tuple | list):
            parts = [self.sync_state_context(part, context) for part in state]
            return state if all(map(operator.is_, parts, state)) else type(state)(parts)
        return state if state is None else arrays.to_device_of(state, context)

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """All states, with their update counts, as bytes (see the format's page in the docs).

        Parameters
        ----------
        dump_optimizer : bool
            Include the optimizer: its registered name and plain arguments, its scheduler, its
            multipliers.
        """
        sums = {} if self._sums is None else self._sums.waiting
        return dump(self.states, self.optimizer, self._parameters, dump_optimizer, sums)

    def set_states(self, states: bytes) -> None:
        """Loads what `get_states` returned: states and counts, and the optimizer if it is included.

        If the saved optimizer is of the same class, this updater's takes over its options, and
        stays the same object; one of another class replaces it, as in MXNet.

        Raises StatesError, and changes nothing, if the bytes are damaged or foreign, or the states
        are of another optimizer or of other parameters. Parameters that aren't known yet are
        compared at their first update.
        """
        self.take(load(states), {}, True)

    def take(self, loaded: Loaded, known: Mapping[Index, Described], replaceable: bool = False) -> None:
        """`set_states` for a caller that knows the parameters and, unless `replaceable`, must keep
        its optimizer."""
        uninterrupted(partial(self._take, loaded, known, replaceable))

    def _take(self, loaded: Loaded, known: Mapping[Index, Described], replaceable: bool) -> None:
        loaded, self.optimizer = take(loaded, self.optimizer, known, replaceable, self._sums is not None)
        if self._sums is not None:
            self._sums.waiting = loaded.sums
        self.states, self._parameters = loaded.states, loaded.parameters
        self.states_synced, self._fitting = dict.fromkeys(self.states, False), {}
        self._converts = loaded.kind.get("state_dtype") != self.optimizer.state_dtype
        self.aggregate_updates = self.optimizer.aggregate_num > 0

    def __repr__(self) -> str:
        return f"<Updater with states of {counted(len(self.states), 'parameter')}: {self.optimizer!r}>"


def _check_methods(optimizer: Optimizer) -> None:
    """Raises ArgumentError if a method was set on the object itself, where nothing would call
    it."""
    names, kind = optimizer.overridable if isinstance(optimizer, RuleOptimizer) else (), type(optimizer)
    unlike = {name for name in names if _function(optimizer, name) is not _function(kind, name)}
    # Asking for an object's `vars` makes Python look up its attributes slowly from then on.
    replaced = sorted(vars(optimizer).keys() & unlike) if unlike else []
    if replaced:
        name = type(optimizer).__name__
        raise ArgumentError(
            f"{name}: {replaced[0]} was put on the object, where lists and servers don't look: override it in a class,"
            f" class Own{name}(mxopt.optimizer.{name})"
        )


def _function(owner: object, name: str) -> object:
    found = getattr(owner, name)
    return getattr(found, "__func__", found)


def _check_lengths(indices: Sequence[object], grads: Sequence[object], weights: Sequence[object]) -> None:
    try:
        alike = len(indices) == len(grads) == len(weights)
    except TypeError:
        raise ArrayTypeError(
            "update: to a list of indices go a list of gradients and a list of weights, got"
            f" {type(grads).__name__} and {type(weights).__name__}"
        ) from None
    if not alike:
        raise ArrayError(
            f"update: lists of {counted(len(indices), 'index')}, {counted(len(grads), 'gradient')} and"
            f" {counted(len(weights), 'weight')}"
        )


def _check_index(index: object) -> None:
    """Raises ArgumentTypeError for an index under which no state could be saved."""
    if not isinstance(index, int | str | np.integer):
        raise _no_index(index)
    if not isinstance(index, str) and not -(1 << 63) <= index < 1 << 64:
        raise ArgumentTypeError(f"an updater's index must be a number of 64 bits or a text, got {index}")


def _no_index(given: object) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"an updater takes (index, grad, weight): the index must be a number or a text, got {type(given).__name__}"
    )


def get_updater(optimizer: Optimizer) -> Updater:
    """A function `updater(index, grad, weight)` that keeps the states of all weights.

    >>> import numpy as np
    >>> from mxopt import create
    >>> weight = np.ones(2, np.float32)
    >>> updater = get_updater(create('sgd', learning_rate=0.5))
    >>> updater(0, np.array([1, 2], np.float32), weight)
    >>> weight
    array([0.5, 0. ], dtype=float32)
    """
    if isinstance(optimizer, type) or not hasattr(optimizer, "update_multi_precision"):
        raise ArgumentTypeError(f"needs an optimizer, as mxopt.create('sgd') makes it, got {optimizer!r}")
    return Updater(optimizer)
