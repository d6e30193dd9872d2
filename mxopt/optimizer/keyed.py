"""Lets a key-value store use an optimizer that holds its parameters in groups: updates by key, with
states that the store keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import setitem
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from mxopt import settings, state_dtype
from mxopt.engine import arrays
from mxopt.engine.steps import PATTERNS
from mxopt.errors import ArgumentError, ArrayError, StatesError, counted
from mxopt.optimizer.base import LISTS, Index, Optimizer
from mxopt.optimizer.family import FAMILIES, Family, Options
from mxopt.optimizer.grouped import GroupedOptimizer, Slot
from mxopt.typing import Array, Document, Plain, State


class _OfModel:
    """An attribute that is kept by the model."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, keyed: Any, owner: type) -> Any:
        return self if keyed is None else getattr(keyed.model, self.name)

    def __set__(self, keyed: Any, value: Any) -> None:
        setattr(keyed.model, self.name, value)


class KeyedOptimizer(Optimizer):
    """An optimizer of groups in a store; `set_optimizer` makes it from the one that it is given.

    A key is a parameter's name, or its position among all parameters. A state is a tuple: the
    arrays that the rule names, the master copy if there is one, and, if the optimizer hands on a
    number from step to step, that number as an array without axes.

    Parameters
    ----------
    family : str
        Its name in `FAMILIES`.
    described : dict
        The class, as the family's registry describes it.
    made_by : dict
        The arguments of its constructor.
    groups : list of dict
        The options of each group, with the names of its parameters as "params".
    """

    decayed_endings: ClassVar[tuple[str, ...]] = ("",)  # any name: here names don't decide about weight decay

    def __init__(
        self, family: str, described: Options, made_by: Options, groups: Sequence[Options], **kwargs: Any
    ) -> None:
        if family not in FAMILIES:
            raise StatesError(f"there are no optimizers {family!r}: {', '.join(FAMILIES)}")
        of = FAMILIES[family]
        klass = of.registry.find(described)
        self.family = family
        self.described = described
        self.made_by = made_by
        self.kind: Any = klass.__name__
        options = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self._names = [list(group["params"]) for group in groups]
        self._number = {name: number for number, names in enumerate(self._names) for name in names}
        self.follow(of.make(klass, made_by, options, kwargs.get("multi_precision", False)))
        super().__init__(**kwargs)
        self.aggregate_num: int = settings.aggregation_size()

    def follow(self, model: Any) -> None:
        """From here on, updates with `model`."""
        self.model: GroupedOptimizer = model
        self.of: Family = FAMILIES[self.family](model)
        self._states = self._state_names()
        self._slots: dict[Index, Slot] = {}

    # What changes during training: the groups' options and the scale of the gradients.

    @property
    def groups(self) -> list[Options]:
        """The options of each group as they are now, with the names of its parameters."""
        groups = self.of.groups()
        if len(groups) != len(self._names) or self._state_names() != self._states:
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
        self.of.set_groups([{name: value for name, value in group.items() if name != "params"} for group in groups])

    rescale_grad: Any = _OfModel()
    state_dtype: Any = _OfModel()
    seed: Any = _OfModel()

    def check_state_dtype(self, asked: str) -> None:
        for rule in self.of.rules():
            state_dtype.check(asked, rule, self.kind)

    @property
    def learning_rate(self) -> float:
        """The learning rate. Raises ArgumentError if groups have different ones."""
        rates = {group["lr"] for group in self.of.groups()}
        if len(rates) != 1:
            raise ArgumentError(
                f"{self.kind}: the groups have learning rates of their own: set those, in param_groups or by"
                " get_lr_parameter"
            )
        return float(rates.pop())

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate. Raises ArgumentError if groups have different ones, or a schedule
        sets it."""
        if self.learning_rate != lr:
            self.of.set_rate(lr)

    def _state_names(self) -> list[tuple[str, ...]]:
        return [self.of.state_names(number) for number in range(len(self.of.groups()))]

    # What a store asks.

    @property
    def elementwise(self) -> bool:
        return self.of.elementwise()

    def prepare(self, step: int) -> None:
        """Prepares the options of step number `step`, from 0, before servers are asked for it.

        Raises ScheduleOverError if a list of rates has none for it.
        """
        self.of.reach(step)
        self.of.check_step(step)

    def check_index(self, index: Index) -> None:
        """Raises ArgumentError if the key isn't a parameter."""
        self._group(index)

    def state_kind(self) -> Plain:
        family = {"optimizer": self.kind, "family": f"mxopt.{self.family}"}
        kept = {"rules": [rule.name for rule in self.of.rules()], "state_dtype": self.state_dtype}
        return {**super().state_kind(), **family, **kept}

    def is_like(self, other: Optimizer) -> bool:
        return isinstance(other, KeyedOptimizer) and self._class() == other._class()

    def take_over(self, made: Optimizer) -> None:
        """Takes the options and counts of `made`. Raises StatesError if its groups have other
        parameters."""
        assert isinstance(made, KeyedOptimizer)
        try:
            self.groups = made.groups
        except ArgumentError as error:
            raise StatesError(str(error)) from error
        self.rescale_grad = made.rescale_grad
        self.state_dtype = made.state_dtype if self.state_dtype is None else self.state_dtype
        self._states = self._state_names()
        self.set_counts(made.get_counts())

    def _class(self) -> tuple[str, Options]:
        return self.family, self.of.registry.describe(type(self.model))

    def set_counts(self, counts: Document) -> None:
        super().set_counts(counts)
        if self.num_update:  # a worker of a distributed store counts elsewhere
            self.of.reach(self.num_update)

    def __repr__(self) -> str:
        return (
            f"<{self.kind} of mxopt.{self.family}, {counted(len(self._names), 'group')}, num_update={self.num_update}>"
        )

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

    def state_names(self, index: Index, weight: Array) -> list[str]:
        """The names of a state's elements."""
        names = list(self._states[self._group(index)])
        names += ["master"] if self.uses_master(weight) else []
        return names + ([self.model.carried] if self.model.carried else [])

    def create_state_multi_precision(self, index: Index, weight: Array) -> tuple[Array, ...]:
        """The state of a new weight."""
        weight = arrays.as_array(weight, self.called(index))
        master = [weight.astype(np.float32)] if self.uses_master(weight) else []
        source = master[0] if master else weight
        state = self.of.new_states(self._group(index), source, self._multiplier("lr_mult", index))
        carry = [np.array(self.model.first_carry, np.float64)] if self.model.carried else []
        return (*state, *master, *carry)

    create_state = create_state_multi_precision

    def uses_master(self, weight: Array) -> bool:
        return self.model.uses_master(weight)

    def split(self, state: State) -> tuple[State, Array]:
        at = len(state) - (2 if self.model.carried else 1)
        return (*state[:at], *state[at + 1 :]), state[at]

    # Updates.

    def update(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        """Updates one weight, or lists of them, in place; the states are those of `create_state`.

        Raises ArrayError if an array can't be updated; nothing has been changed then.
        """
        if not isinstance(index, LISTS):
            index, weight, grad, state = (index,), (weight,), (grad,), (state,)
        slots = list(map(self._slot, index, weight, state))
        if self.model.carried:
            for slot in slots:
                slot.carry = float(slot.given[-1])
        self.model.apply(tuple(index), slots, list(grad), self._count)
        self.of.reach(self.num_update)

    update_multi_precision = update

    def _slot(self, index: Index, weight: Array, state: State) -> Slot:
        """The slot of a key; the same object for as long as the key's state is."""
        slot = self._slots.get(index)
        if slot is None or slot.given is not state or slot.weight is not weight:
            weight = arrays.as_array(weight, f"{self.called(index)}, weight")
            if slot is None or slot.given is not state or slot.weight.dtype != weight.dtype:
                slot = self._slots[index] = self._new_slot(index, weight, state)
            slot.weight = weight
        slot.step = self._index_update_count.get(index, self.begin_num_update)
        if not self.param_dict:
            mine = slot.parameter
            mine.lr_mult, mine.wd_mult = self._multiplier("lr_mult", index), self._multiplier("wd_mult", index)
        return slot

    def _new_slot(self, index: Index, weight: Array, state: State) -> Slot:
        names = self.state_names(index, weight)
        if len(names) != len(state):
            raise ArrayError(f"{self.called(index)}: {self.kind} needs {names}, the state is {state!r:.200}")
        parts = dict(zip(names, state, strict=True))
        parts.pop(self.model.carried or "", None)
        multipliers: Any = self.param_dict[index] if self.param_dict else SimpleNamespace()
        self.model.steps.lists = PATTERNS + 2 * len(self._slots)
        key, first = self.parts.get(index, (index, 0))
        return Slot(
            index,
            self.called(index),
            self._group(index),
            multipliers,
            weight,
            arrays=parts,
            given=state,
            own=self.model.own(weight),
            key=self.idx2name[key],
            first=first,
        )

    def _count(self, slots: Sequence[Slot], steps: Iterable[int], carries: Iterable[float]) -> Iterable[object]:
        counts = dict(zip([slot.name for slot in slots], steps, strict=False))
        latest = max(self.num_update, max(counts.values()))
        kept = [slot.given[-1] for slot in slots] if carries else []
        return chain(
            map(self._index_update_count.update, [counts]),
            map(setattr, [self], ["num_update"], [latest]),
            map(setitem, kept, repeat(...), carries),
        )


Optimizer.registry.add("_grouped", KeyedOptimizer)  # not in opt_registry, so `create` doesn't make it


def is_grouped(optimizer: object) -> bool:
    """Whether an optimizer holds its parameters in groups."""
    return any(isinstance(optimizer, of.base) for of in FAMILIES.values())


def following(optimizer: Any) -> KeyedOptimizer:
    """A KeyedOptimizer that follows `optimizer`: it always has its current options.

    Raises ArgumentError if `optimizer` overrides how it steps, or if a server couldn't make one
    like it.
    """
    family = next(of for of in FAMILIES.values() if isinstance(optimizer, of.base))
    family.check(optimizer)
    of = family(optimizer)
    groups, slots, names = of.groups(), optimizer.slots, optimizer.keys()
    members = [[name for slot, name in zip(slots, names, strict=True) if slot.group == k] for k in range(len(groups))]
    made = KeyedOptimizer(
        of.name,
        of.registry.describe(type(optimizer)),
        of.arguments(),
        [{**group, "params": mine} for group, mine in zip(groups, members, strict=True)],
        multi_precision=optimizer.multi_precision,
        state_dtype=optimizer.state_dtype,
        seed=optimizer.seed,
        rescale_grad=optimizer.rescale_grad,
        param_idx2name={key: name for k, name in enumerate(names) for key in (k, name)},
        param_dict={key: s.parameter for k, s in enumerate(slots) for key in (k, names[k])},
    )
    made.follow(optimizer)
    return made


def by_key(optimizer: Any) -> Optimizer:
    """The optimizer for a store: `optimizer` itself, or a KeyedOptimizer that follows it if it
    holds its parameters in groups.

    Raises ArgumentError if `following` does, and if `optimizer` has made steps already, whose
    states would be lost.
    """
    found: Optimizer = following(optimizer) if is_grouped(optimizer) else optimizer
    if isinstance(found, KeyedOptimizer):
        stepped = max(map(found.of.count, found.model.slots), default=0)
        if stepped > found.num_update:  # not in a store
            raise ArgumentError(
                f"the {found.kind} has made {counted(stepped, 'step')} already, and a store starts without states:"
                " give it a new optimizer, and load the states from a file of Trainer.save_states"
            )
    return found
