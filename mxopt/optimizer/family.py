"""What must be known of optimizers that have their parameters in groups, so that stores and Trainers can have them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from mxopt.optimizer.base import Index
from mxopt.registry import Registry

Options = dict[str, Any]


class Grouped(Protocol):
    """Such an optimizer. It has a slot of each of its parameters, with what is kept of it."""

    multi_precision: bool
    rescale_grad: float
    steps: Any

    @property
    def slots(self) -> list[Any]: ...
    def __call__(self, gradients: Any) -> Any: ...
    def apply(
        self,
        key: Hashable,
        slots: list[Any],
        grads: list[Any],
        count: Callable[[list[Any], list[Any]], Iterable[object]],
    ) -> None: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...


class Family(Protocol):
    """How to deal with the optimizers of a family, of which `model` is one. Groups are numbered.

    A state is the arrays of `state_names`, the master copy where there is one, and the number that the model hands on
    from step to step of a parameter, where it does: `carried` is its name, and `first_carry` its first value.
    """

    name: ClassVar[str]
    base: ClassVar[type]
    registry: ClassVar[Registry]
    model: Any
    carried: str | None
    first_carry: float

    def __init__(self, model: Any) -> None: ...

    @classmethod
    def make(cls, klass: type, arguments: Options, groups: Sequence[Options], multi_precision: bool) -> Any:
        """A model without parameters: `arguments` are those of its class, `groups` have the options of each group."""

    @staticmethod
    def check(model: Any) -> None:
        """Raises ArgumentError where an optimizer makes its steps in a way of its own, which no store could call."""

    def arguments(self) -> Options:
        """What `make` takes. Raises ArgumentError where it can't be known."""

    def groups(self) -> list[Options]:
        """The options of each group as they are now."""

    def set_groups(self, groups: Sequence[Options]) -> None:
        """Takes over the options of each group."""

    def set_rate(self, lr: float) -> None:
        """Sets the learning rate of all groups. Raises ArgumentError, and changes nothing, where that can't be."""

    def names(self) -> list[str]:
        """The parameters' names, each another."""

    def members(self) -> list[list[str]]:
        """The names of each group's parameters."""

    def reach(self, step: int) -> None:
        """Makes `step` the number of steps so far, for what depends on it in all parameters."""

    def check_step(self, step: int) -> None:
        """Raises ScheduleOverError where there is no rate for a step, from 0."""

    def elementwise(self) -> bool:
        """Whether each element is updated by itself."""

    def rules(self) -> list[str]:
        """The name of each group's rule, which says what its states are."""

    def state_names(self, group: int) -> tuple[str, ...]:
        """What the arrays of a state are."""

    def uses_master(self, weight: Any) -> bool:
        """Whether there is a float32 copy of `weight`."""

    def new_states(self, group: int, weight: Any, lr_mult: float) -> Sequence[Any]:
        """The arrays of a new state."""

    def new_slot(self, name: Index, group: int, weight: Any, multipliers: Any, state: Options) -> Any:
        """A parameter that isn't the model's own: its `weight`, `step` and `carry` are set before each update."""

    def count(self, slot: Any) -> int:
        """How often the model has updated one of its parameters."""

    def state(self, slot: Any) -> tuple[Any, ...]:
        """The state of one of the model's parameters."""

    def document(self, groups: Sequence[Options], states: Mapping[int, tuple[int, Options]]) -> Options:
        """A `state_dict` of these options, and of counts and states by the position of each parameter."""


FAMILIES: dict[str, type[Family]] = {}
