"""An experimental optimizer as key-value stores need it: updates by key, with states that someone else keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import setitem
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from mxopt import settings
from mxopt.arguments import arguments_of
from mxopt.engine import arrays
from mxopt.engine.steps import PATTERNS
from mxopt.errors import ArgumentError, ArrayError, StatesError
from mxopt.experimental.optim.groups import Options, Slot
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.optimizer.base import LISTS, Index
from mxopt.optimizer.base import Optimizer as ByKey
from mxopt.overrides import overridden
from mxopt.registry import same_class


class KeyedOptimizer(ByKey):
    """An optimizer of `mxopt.experimental.optim` for a store; `set_optimizer` makes it of one that it is given.

    A key is the name of a parameter, or its position among all parameters. A state is a tuple: the arrays that the
    rule names, the master copy where there is one, and, where the optimizer hands a number on, that number as an array
    of no axes.

    Parameters
    ----------
    described : dict
        The class, as `Optimizer.registry` describes it.
    defaults : dict
        Its options.
    groups : list of dict
        The options of each group, with the names of its parameters as "params".
    """

    decayed_endings: ClassVar[tuple[str, ...]] = ("",)  # a name says nothing about weight decay here

    def __init__(self, described: Options, defaults: Options, groups: Sequence[Options], **kwargs: Any) -> None:
        klass: type[Optimizer] = Optimizer.registry.find(described)
        self.described, self.kind, self.defaults = described, klass.__name__, defaults
        known = {name: value for name, value in defaults.items() if name in arguments_of(klass)}
        self.model: Optimizer = klass([{**group, "params": []} for group in groups], **known)
        self.model.multi_precision = kwargs.get("multi_precision", False)
        self._names = [list(group["params"]) for group in groups]
        self._number = {name: number for number, names in enumerate(self._names) for name in names}
        self._states = self._rule_states()
        self._slots: dict[Index, tuple[Slot, Any]] = {}  # with the state each was made for
        super().__init__(**kwargs)
        self.aggregate_num = settings.aggregation_size()

    # What changes during training: the groups' options and the scale of the gradients.

    @property
    def groups(self) -> list[Options]:
        """The options of each group as they are now, with the names of its parameters."""
        groups = self.model.param_groups
        if len(groups) != len(self._names) or self._rule_states() != self._states:
            raise ArgumentError(
                f"{self.kind}: groups were added, or an option was changed so that other states are needed;"
                " call set_optimizer again, which starts with new states"
            )
        return [{**group, "params": names} for group, names in zip(groups, self._names, strict=True)]

    @groups.setter
    def groups(self, groups: Sequence[Options]) -> None:
        theirs = [list(group["params"]) for group in groups]
        if list(map(sorted, theirs)) != list(map(sorted, self._names)):
            raise ArgumentError(f"{self.kind}: these are the groups of other parameters, {theirs}, not {self._names}")
        for mine, new in zip(self.model.param_groups, groups, strict=True):
            mine.update({name: value for name, value in new.items() if name != "params"})

    @property
    def rescale_grad(self) -> float:
        """What gradients are multiplied by first."""
        return self.model.rescale_grad

    @rescale_grad.setter
    def rescale_grad(self, scale: float) -> None:
        self.model.rescale_grad = scale

    @property
    def learning_rate(self) -> float:
        """The learning rate. Raises ArgumentError where groups have different ones."""
        rates = {group["lr"] for group in self.model.param_groups}
        if len(rates) != 1:
            raise ArgumentError(f"{self.kind}: the groups have learning rates of their own: use param_groups")
        return float(rates.pop())

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate. Raises ArgumentError where groups have different ones."""
        if self.learning_rate != lr:
            for group in self.model.param_groups:
                group["lr"] = lr

    def _rule_states(self) -> list[tuple[str, ...]]:
        return [self.model.rule(group).states for group in self.model.param_groups]

    # What a store asks.

    @property
    def elementwise(self) -> bool:
        rules = [self.model.rule(group) for group in self.model.param_groups]
        if overridden(type(self.model), ["new_state"]):
            return False
        return not (self.model.carried or any(rule.layerwise or rule.row_state for rule in rules))

    def check_index(self, index: Index) -> None:
        """Raises ArgumentError where the key is no parameter."""
        self._group(index)

    def state_kind(self) -> dict[str, Any]:
        rules = [self.model.rule(group).name for group in self.model.param_groups]
        family = {"optimizer": self.kind, "family": "mxopt.experimental.optim"}
        return {**super().state_kind(), **family, "rules": rules}

    def is_like(self, other: ByKey) -> bool:
        return isinstance(other, KeyedOptimizer) and same_class(type(other.model), type(self.model))

    def take_over(self, made: ByKey) -> None:
        """Takes the options and counts of `made`. Raises StatesError where its groups are of other parameters."""
        assert isinstance(made, KeyedOptimizer)
        try:
            self.groups = made.groups
        except ArgumentError as error:
            raise StatesError(str(error)) from error
        self.rescale_grad = made.rescale_grad
        self._states = self._rule_states()
        self.set_counts(made.get_counts())

    def __repr__(self) -> str:
        return f"<{self.kind} of mxopt.experimental.optim, {len(self._names)} groups, num_update={self.num_update}>"

    def _group(self, index: Index) -> int:
        """The number of the group that a key's parameter is in."""
        number = self._number.get(self.idx2name.get(index, ""))
        if number is None:
            raise ArgumentError(
                f"key {index!r} is no parameter of this {self.kind}: a key must be a parameter's name, or its"
                f" position from 0 to {len(self._number) - 1}"
            )
        return number

    # States.

    def state_names(self, index: Index, weight: Any) -> list[str]:
        """What the elements of a state are."""
        names = list(self._states[self._group(index)])
        names += ["master"] if self.uses_master(weight) else []
        return names + ([self.model.carried] if self.model.carried else [])

    def create_state(self, index: Index, weight: Any) -> tuple[Any, ...]:
        """The state of a new weight."""
        return self.create_state_multi_precision(index, weight)

    def create_state_multi_precision(self, index: Index, weight: Any) -> tuple[Any, ...]:
        """The state of a new weight."""
        weight = arrays.as_array(weight, f"parameter {index!r}")
        group = self.model.param_groups[self._group(index)]
        master = [weight.astype(np.float32)] if self.uses_master(weight) else []
        source = master[0] if master else weight
        state = [self.model.new_state(name, source, group) for name in self.model.rule(group).states]
        carry = [np.array(self.model.first_carry, np.float64)] if self.model.carried else []
        return (*state, *master, *carry)

    def uses_master(self, weight: Any) -> bool:
        return self.model.uses_master(weight)

    def split(self, state: Any) -> tuple[Any, Any]:
        at = len(state) - (2 if self.model.carried else 1)
        return (*state[:at], *state[at + 1 :]), state[at]

    # Updates.

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Updates one weight, or lists of them, in place; the states are those of `create_state`.

        Raises ArrayError where an array can't be updated; nothing has been changed then.
        """
        if not isinstance(index, LISTS):
            index, weight, grad, state = (index,), (weight,), (grad,), (state,)
        slots = list(map(self._slot, index, weight, state))
        self.model.apply(tuple(index), slots, list(grad), self._count)

    update_multi_precision = update

    def _slot(self, index: Index, weight: Any, state: Any) -> Slot:
        """A key as the optimizer's parameter that it is; the same object while its state is."""
        weight = arrays.as_array(weight, f"parameter {index!r}, weight")
        slot, before = self._slots.get(index, (None, None))
        if slot is None or state is not before or weight.dtype != slot.weight.dtype:
            slot = self._new_slot(index, weight, state)
            self._slots[index] = slot, state
        slot.weight, slot.step = weight, self._index_update_count.get(index, self.begin_num_update)
        slot.carry = float(state[-1]) if self.model.carried else 0.0
        slot.parameter.lr_mult = self._multiplier("lr_mult", index)
        slot.parameter.wd_mult = self._multiplier("wd_mult", index)
        return slot

    def _new_slot(self, index: Index, weight: Any, state: Any) -> Slot:
        names = self.state_names(index, weight)
        if len(names) != len(state):
            raise ArrayError(f"parameter {index!r}: {self.kind} needs {names}, the state is {state!r:.200}")
        parts = dict(zip(names, state, strict=True))
        parts.pop(self.model.carried or "", None)
        multipliers: Any = SimpleNamespace(lr_mult=1.0, wd_mult=1.0)
        slot = Slot(index, f"parameter {index!r}", self._group(index), multipliers, weight, 0.0, 0, parts)
        self.model.steps.lists = PATTERNS + 2 * len(self._slots)
        return slot

    def _count(self, slots: list[Slot], carries: list[float]) -> Iterable[object]:
        counts = {slot.name: slot.step + 1 for slot in slots}
        latest = map(max, [max(counts.values())], map(getattr, [self], ["num_update"]))
        kept = [self._slots[slot.name][1][-1] for slot in slots[: len(carries)]]
        return chain(
            map(self._index_update_count.update, [counts]),
            map(setattr, [self], ["num_update"], latest),
            map(setitem, kept, repeat(...), carries),
        )


ByKey.registry.add("_experimental", KeyedOptimizer)  # nothing that `create` makes: it is in no list


def following(optimizer: Optimizer) -> KeyedOptimizer:
    """A KeyedOptimizer with the options of `optimizer`, now and whenever they change.

    Raises ArgumentError where that can't be: it makes its steps in a way of its own, or no server could make one like
    it.
    """
    klass, name = type(optimizer), type(optimizer).__name__
    for method in ("construct", "__call__"):
        if getattr(klass, method) is not getattr(Optimizer, method):
            raise ArgumentError(f"{name} defines {method}: for a store or a Trainer it must define rule and scalars")
    arguments = (*arguments_of(klass), *optimizer.unnamed_arguments)
    unknown = [a for a in arguments if a not in optimizer.defaults and a not in ("params", "multi_precision")]
    if unknown:
        raise ArgumentError(f"{name}: the argument {unknown[0]!r} is none of its options, so servers can't get it")
    slots = [slot for members in optimizer._members for slot in members]
    pairs = zip(optimizer.param_groups, optimizer._members, strict=True)
    made = KeyedOptimizer(
        Optimizer.registry.describe(klass),
        optimizer.defaults,
        [{**group, "params": [slot.name for slot in members]} for group, members in pairs],
        multi_precision=optimizer.multi_precision,
        rescale_grad=optimizer.rescale_grad,
        param_idx2name={key: slot.name for k, slot in enumerate(slots) for key in (k, slot.name)},
        param_dict={key: slot.parameter for k, slot in enumerate(slots) for key in (k, slot.name)},
    )
    made.model = optimizer
    return made


def by_key(optimizer: ByKey | Optimizer) -> ByKey:
    """An optimizer that a store can have: `optimizer` itself, or a KeyedOptimizer that follows an experimental one.

    Raises ArgumentError where `following` does, and where it has made steps already, whose states would be lost.
    """
    if isinstance(optimizer, Optimizer):
        optimizer = following(optimizer)
    if isinstance(optimizer, KeyedOptimizer):
        stepped = max((slot.step for members in optimizer.model._members for slot in members), default=0)
        if stepped:
            raise ArgumentError(
                f"the {optimizer.kind} has made {stepped} steps already, and a store starts without states: give it a"
                " new optimizer, and load the states from a file of Trainer.save_states"
            )
    return optimizer
