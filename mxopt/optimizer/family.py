"""What stores and Trainers need to know of optimizers that have their parameters in groups."""

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
    """What a store or a Trainer needs of `model`, an optimizer of the family. Groups are numbered.

    A state consists of the arrays of `state_names`, the master copy if there is one, and the number
    that the model hands on from step to step, if it does.
    """

    name: ClassVar[str]
    base: ClassVar[type]
    registry: ClassVar[Registry]

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def make(cls, klass: type, arguments: Options, groups: Sequence[Options], multi_precision: bool) -> Any:
        """A model without parameters, made with these arguments of its class, and with groups of
        these options."""
        raise NotDefinedError

    @staticmethod
    def check(model: Any) -> None:
        """Raises ArgumentError if an optimizer overrides how it steps, since a store couldn't call
        that."""
        raise NotDefinedError

    def arguments(self) -> Options:
        """The arguments that `make` takes. Raises ArgumentError if they aren't known."""
        raise NotDefinedError

    def groups(self) -> list[Options]:
        """The options of each group as they are now."""
        raise NotDefinedError

    def set_groups(self, groups: Sequence[Options]) -> None:
        """Sets the options of each group."""
        raise NotDefinedError

    def set_rate(self, lr: float) -> None:
        """Sets the learning rate of all groups. Raises ArgumentError, and changes nothing, if that
        isn't possible."""
        raise NotDefinedError

    def reach(self, step: int) -> None:
        """Sets the number of steps so far, if the model counts for all parameters."""

    def check_step(self, step: int) -> None:
        """Raises ScheduleOverError if there is no rate for a step, counted from 0."""

    def elementwise(self) -> bool:
        """Whether each element is updated independently of the others."""
        return not (self.model.carried or any(rule.layerwise or rule.reduction for rule in self.rules()))

    def rules(self) -> list[Rule]:
        """The rule of each group, which names its states; a single one if all share it."""
        raise NotDefinedError

    def state_names(self, group: int) -> tuple[str, ...]:
        """The names of a state's arrays."""
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
        """A `state_dict` with these options, and with counts and states by each parameter's
        position."""
        raise NotDefinedError


FAMILIES: dict[str, type[Family]] = {}
