"""What must be known of optimizers that have their parameters in groups, so that stores and
Trainers can have them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mxopt.errors import NotDefinedError
from mxopt.optimizer.grouped import Slot
from mxopt.registry import Registry
from mxopt.rules.rule import Rule
from mxopt.typing import Array, Plain

Options = Plain


class Family:
    """How to deal with the optimizers of a family, of which `model` is one. Groups are numbered.

    A state is the arrays of `state_names`, the master copy where there is one, and the number that
    the model hands on from step to step of a parameter, where it does.
    """

    name: ClassVar[str]
    base: ClassVar[type]
    registry: ClassVar[Registry]

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def make(cls, klass: type, arguments: Options, groups: Sequence[Options], multi_precision: bool) -> Any:
        """A model without parameters: `arguments` are those of its class, `groups` have the options
        of each group."""
        raise NotDefinedError

    @staticmethod
    def check(model: Any) -> None:
        """Raises ArgumentError where an optimizer makes its steps in a way of its own, which no
        store could call."""
        raise NotDefinedError

    def arguments(self) -> Options:
        """What `make` takes. Raises ArgumentError where it can't be known."""
        raise NotDefinedError

    def groups(self) -> list[Options]:
        """The options of each group as they are now."""
        raise NotDefinedError

    def set_groups(self, groups: Sequence[Options]) -> None:
        """Takes over the options of each group."""
        raise NotDefinedError

    def set_rate(self, lr: float) -> None:
        """Sets the learning rate of all groups. Raises ArgumentError, and changes nothing, where
        that can't be."""
        raise NotDefinedError

    def names(self) -> list[str]:
        """The parameters' names, each another."""
        found: list[str] = self.model.keys()
        return found

    def members(self) -> list[list[str]]:
        """The names of each group's parameters."""
        named = list(zip(self.model.slots, self.names(), strict=True))
        return [[name for slot, name in named if slot.group == number] for number in range(len(self.groups()))]

    def reach(self, step: int) -> None:
        """Makes `step` the number of steps so far, for what depends on it in all parameters."""

    def check_step(self, step: int) -> None:
        """Raises ScheduleOverError where there is no rate for a step, from 0."""

    def elementwise(self) -> bool:
        """Whether each element is updated by itself."""
        return not (self.model.carried or any(rule.layerwise or rule.reduction for rule in self.rules()))

    def rules(self) -> list[Rule]:
        """The rule of each group, which says what its states are; one where all have the same."""
        raise NotDefinedError

    def state_names(self, group: int) -> tuple[str, ...]:
        """What the arrays of a state are."""
        return self.rules()[group].states

    def new_states(self, group: int, weight: Array, lr_mult: float) -> Sequence[Hashable]:
        """The arrays of a new state."""
        raise NotDefinedError

    def count(self, slot: Slot) -> int:
        """How often the model has updated one of its parameters."""
        return self.model.global_step if slot.step is None else slot.step

    def state(self, slot: Slot) -> tuple[Array, ...]:
        """The state of one of the model's parameters."""
        names = [*self.state_names(slot.group), *(["master"] if self.model.uses_master(slot.weight) else [])]
        return (*(slot.arrays[name] for name in names), *([np.array(slot.carry)] if self.model.carried else []))

    def document(self, groups: Sequence[Options], states: Mapping[int, tuple[int, Options]]) -> Options:
        """A `state_dict` of these options, and of counts and states by the position of each
        parameter."""
        raise NotDefinedError


FAMILIES: dict[str, type[Family]] = {}
