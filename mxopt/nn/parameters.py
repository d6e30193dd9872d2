"""The parameters of an optimizer, its groups, and their learning rates and weight decays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import (
    ArgumentError,
    ArgumentKeyError,
    ArgumentTypeError,
    RepeatedParameterError,
    ScheduleOverError,
    counted,
    nearest,
)
from mxopt.nn.learning_rate_schedule import LearningRateSchedule
from mxopt.optimizer.grouped import Slot
from mxopt.options import flag, one_number, within
from mxopt.parameter import Parameter, named, value_of
from mxopt.typing import Array

KEYS = ("params", "lr", "weight_decay", "grad_centralization", "order_params")
Rate = Parameter | LearningRateSchedule
Decay = float | Callable[[int], float]


class ParameterTuple(tuple[Parameter, ...]):
    """Parameters in order. An attribute of an optimizer that is one of these (other than its
    parameters) is a state."""

    def clone(self, prefix: str, init: str | float = "zeros") -> ParameterTuple:
        """New parameters of the same shapes, devices and dtypes, named `prefix.name`.

        `init` is "same" for copies, "zeros", "ones", or a number. Clones of 16-bit parameters are
        float32.
        """
        if init == "same":
            return ParameterTuple(self._clone(prefix, p, p.value) for p in self)
        value = {"zeros": 0.0, "ones": 1.0}.get(init) if isinstance(init, str) else init
        if value is None:
            raise ArgumentError(f"clone: init must be 'same', 'zeros', 'ones' or a number, got {init!r}")
        return ParameterTuple(self._clone(prefix, p, value) for p in self)

    @staticmethod
    def _clone(prefix: str, parameter: Parameter, values: Array) -> Parameter:
        new = zeros(parameter.shape, parameter.value)
        new[...] = values
        return Parameter(new, f"{prefix}.{parameter.name}" if parameter.name else prefix)


def zeros(shape: tuple[int, ...], like: Array, dtype: np.dtype | None = None) -> Array:
    """Zeros for a state of the array `like`, on its device: of `dtype`, or by default of its dtype,
    float32 at least."""
    if dtype is None and like.dtype.itemsize == 2:
        dtype = np.dtype(np.float32)
    return arrays.zeros(shape, like, dtype)


class Listed(LearningRateSchedule):
    """One value for each step."""

    def __init__(self, values: np.ndarray, name: str, where: str) -> None:
        self.values: list[float] = values.tolist()
        self.name = name
        self.where = where

    def construct(self, global_step: int) -> float:
        if global_step >= len(self.values):
            raise ScheduleOverError(
                f"{self.where}: learning_rate lists {counted(len(self.values), 'value')}, there is none for step"
                f" {global_step}"
            )
        return float(self.values[global_step])

    def __repr__(self) -> str:
        return f"a list of {len(self.values)}"


@dataclass(eq=False)
class ParameterGroup:
    """What some parameters share: learning rate, weight decay, and whether their gradients are
    centralized."""

    rate: Rate
    decay: Decay
    centralized: bool = False


def as_rate(value: Any, where: str, name: str = "learning_rate") -> Rate:
    """A learning rate as its source at each step: a parameter without axes, or a schedule."""
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, Parameter):
        if value.shape == ():
            return value
        value = value.asnumpy()
    if isinstance(value, str) or not (isinstance(value, float | int | np.number | Iterable) or hasattr(value, "ndim")):
        raise ArgumentTypeError(
            f"{where}: learning_rate must be a float, an int, an array, an iterable or a LearningRateSchedule,"
            f" got {value!r}"
        )
    if isinstance(value, Iterable) and not hasattr(value, "ndim"):
        value = list(value)
    try:
        given = np.asarray(arrays.as_array(value, where) if arrays.is_tensor(value) else value)
        values = given.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"{where}: learning_rate must hold numbers, got {value!r}") from error
    if values.ndim == 0 and hasattr(value, "ndim") and not isinstance(value, np.number) and given.dtype.kind in "biu":
        raise ArgumentTypeError(f"{where}: an array as learning_rate must hold floats, got {value!r}")
    if values.ndim > 1 or not values.size:
        raise ArgumentError(f"{where}: learning_rate must have at most one axis, and a value, got shape {values.shape}")
    for x in values.ravel().tolist():
        within(f"{where}: learning_rate", x, "[0, inf)")
    return Listed(values, name, where) if values.ndim else Parameter(values, name)


def rate_at(rate: Rate, step: int) -> float:
    """The rate of a step. Raises ArgumentError if a schedule doesn't give a number."""
    if isinstance(rate, Parameter):
        return float(rate.value)
    try:
        return _given("learning rate", rate, step, rate(step))
    except OverflowError as error:
        raise ArgumentError(f"the learning rate that {rate!r:.80} gives for step {step} is too large") from error


def _given(what: str, by: object, step: int, value: object) -> float:
    """The number that a schedule or a function gives for a step."""
    if type(value) is float and value == value:
        return value
    return one_number(f"the {what} that {by!r:.80} gives for step {step}", value)


def as_decay(value: object, where: str) -> Decay:
    """A weight decay: a number, or a function of the step."""
    if callable(value):
        return value
    if not isinstance(value, float | int | np.floating):
        raise ArgumentTypeError(f"{where}: weight_decay must be a float, an int or a schedule, got {value!r}")
    within(f"{where}: weight_decay", value, "[0, inf)")
    return float(value)


def scaled_decay(decay: Decay, scale: float) -> Decay:
    """A weight decay times a number."""
    if not callable(decay):
        return decay * scale
    return decay if scale == 1 else partial(_scaled_at, decay, scale)


def _scaled_at(decay: Decay, scale: float, step: int) -> float:
    return decay_at(decay, step) * scale


def decay_at(decay: Decay, step: int) -> float:
    """The weight decay of a step. Raises ArgumentError if a function doesn't give a number."""
    if not callable(decay):
        return decay
    return _given("weight decay", decay, step, decay(step))


def read(parameters: object, every: ParameterGroup, owner: str) -> tuple[list[Slot], list[ParameterGroup], bool]:
    """The parameters of an optimizer in their order, their groups (none if none were given), and
    whether `order_params` gives the order.

    `every` has the defaults of all groups.
    """
    items = _listed(parameters, f"{owner}: parameters")
    if not isinstance(items[0], dict):
        return _unrepeated([_slot(p, f"{owner}: parameter {k}", 0) for k, p in enumerate(items)]), [], False
    slots: list[Slot] = []
    groups: list[ParameterGroup] = []
    order: list[object] | None = None
    for k, group in enumerate(items):
        where = f"{owner}: group {k}"
        if not isinstance(group, dict):
            raise ArgumentTypeError(f"{where} must be a dict like those before it, got {type(group).__name__}")
        unknown = [key for key in group if key not in KEYS]
        if unknown:
            raise ArgumentKeyError(f"{where} has no key {unknown[0]!r}: {nearest(str(unknown[0]), KEYS)}")
        if "order_params" in group:
            if len(group) > 1:
                raise ArgumentError(f"{where}: 'order_params' must be a group's only key, got {', '.join(group)}")
            order = _listed(group["order_params"], f"{where}: 'order_params'")
            continue
        if "params" not in group:
            raise ArgumentKeyError(f"{where} has no 'params'")
        members = _listed(group["params"], f"{where}: 'params'")
        centralized = flag(f"{where}: grad_centralization", group.get("grad_centralization", False))
        own_rate = as_rate(group["lr"], where, f"learning_rate_group_{k}") if "lr" in group else every.rate
        own_decay = as_decay(group["weight_decay"], where) if "weight_decay" in group else every.decay
        slots += [_slot(p, f"{where}, parameter {n}", len(groups)) for n, p in enumerate(members)]
        groups.append(ParameterGroup(own_rate, own_decay, centralized))
    slots = _unrepeated(slots)
    _check_lengths([every.rate, *(group.rate for group in groups)], owner)
    return (slots if order is None else _ordered(slots, order, owner)), groups, order is not None


def _check_lengths(rates: list[Rate], owner: str) -> None:
    """Raises ArgumentError unless all lists of rates have one length, that outside of groups
    included, as in MindSpore."""
    lists = list(dict.fromkeys(rate for rate in rates if isinstance(rate, Listed)))
    for other in lists[1:]:
        if len(other.values) != len(lists[0].values):
            raise ArgumentError(
                f"{owner}: {lists[0].name} lists {counted(len(lists[0].values), 'rate')} and {other.name}"
                f" {len(other.values)}: they must be for the same steps"
            )


def _listed(values: object, what: str) -> list[Any]:
    if values is None:
        raise ArgumentError(f"{what} must be a list of parameters, got None")
    if not isinstance(values, Iterable) or hasattr(values, "dtype") or isinstance(values, str | dict):
        raise ArgumentTypeError(f"{what} must be a list of parameters, got {type(values).__name__}")
    listed = list(values)
    if not listed:
        raise ArgumentError(f"{what} must not be empty")
    return listed


def _slot(given: Any, where: str, group: int) -> Slot:
    if isinstance(given, dict):
        raise ArgumentTypeError(f"{where} must be a parameter like those before it, got a dict")
    given = named(given)
    value_of(given, where)  # or the error wouldn't say where
    parameter = given if isinstance(given, Parameter) else Parameter(given)
    if parameter.name:
        where += f" ({parameter.name})"
    if not arrays.is_cupy(parameter.value):
        arrays.check_dense_weight(parameter.value, where)
    return Slot(parameter.name, where, group, parameter, parameter.value, step=None, given=given)


def _unrepeated(slots: list[Slot]) -> list[Slot]:
    seen: dict[Hashable, Slot] = {}
    for slot in slots:
        value = slot.parameter.value
        apart = arrays.is_cupy(value) or not value.size
        other = seen.setdefault(id(value) if apart else (value.ctypes.data, value.shape, value.strides), slot)
        if other is not slot:
            raise RepeatedParameterError(f"{slot.place} is {other.place.partition(': ')[2]} once more")
    return slots


def _ordered(slots: list[Slot], order: list[object], owner: str) -> list[Slot]:
    by_id = {id(slot.given): slot for slot in slots}
    if len(order) != len(slots) or {id(p) for p in order} != by_id.keys():
        raise ArgumentError(f"{owner}: 'order_params' must name each parameter of the groups once, and no other")
    return [by_id[id(p)] for p in order]
