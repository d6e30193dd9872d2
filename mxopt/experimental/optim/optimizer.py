"""The base of the experimental optimizers: groups, gradients, and one list call of a rule for all that go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import chain, compress, islice, repeat
from typing import Annotated, Any, ClassVar

import numpy as np

from mxopt.arguments import NamedArguments, declared_of
from mxopt.engine import Steps, Tensor, arrays
from mxopt.engine.steps import PATTERNS, Call, distinct, run
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError
from mxopt.experimental.optim import saving
from mxopt.experimental.optim.groups import (
    Options,
    ParameterGroup,
    Slot,
    Step,
    as_groups,
    check_keys,
    checked,
    make_slots,
)
from mxopt.experimental.optim.options import COMMON, Lazy, Masters
from mxopt.options import Declared, Option, declared
from mxopt.parameter import Parameter, written
from mxopt.registry import Registry
from mxopt.rules.rule import Rule


def _columns(slots: list[Slot]) -> tuple[list[Any], list[Parameter], list[Any]]:
    """Weights, parameters and types of arithmetic."""
    return [slot.weight for slot in slots], [slot.parameter for slot in slots], [slot.real for slot in slots]


class Optimizer(NamedArguments):
    """The base of all experimental optimizers. Subclasses define `rule` and `scalars`, or `construct`.

    What they train are float16, bfloat16, float32 or float64 arrays of any shape, plain or as `mxopt.Parameter`;
    whatever lends its memory (a `torch.Tensor` on the CPU) is taken without a copy. Or groups: dicts with "params" and
    their own options.

    Attributes
    ----------
    param_groups : list of dict
        Each with "params" and all options, which may be changed between steps.
    parameters : list
        All parameters as they were given, in the order in which gradients are to come.
    rescale_grad : float
        Gradients are multiplied by this first; 1 unless a `Trainer` divides by a batch size.

    Raises
    ------
    ValueError
        No parameters, the same one twice, or a number out of its range.
    TypeError
        `params` is no list, or holds something that lends no memory. A wrong type of an option is both.
    KeyError
        A group has an option of another optimizer, or a misspelt one.
    """

    checks: ClassVar[Mapping[str, Declared]] = COMMON
    names: ClassVar[set[str]] = set()  # of the options of all optimizers
    carried: ClassVar[str | None] = (
        None  # the name of the number that is handed on from step to step, where there is one
    )
    first_carry: ClassVar[float] = 0.0
    registry: ClassVar[Registry] = Registry("experimental optimizer", "derive it from Optimizer")  # all subclasses

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Optimizer.registry.add(cls.__name__, cls)
        cls.checks = {**COMMON, **declared_of(cls)}
        Optimizer.names.update(declared(cls.__init__))

    def __init__(
        self,
        params: Annotated[Any, Option("", "a list of arrays or Parameters, or of dicts")],
        defaults: Annotated[Options, Option("", "the options, and their values for groups that don't say otherwise")],
        *,
        multi_precision: Masters = False,
        lazy_update: Lazy = False,
    ) -> None:
        options = {"lazy_update": lazy_update, "maximize": False, **defaults}
        self.defaults = checked(options, self.checks, type(self).__name__)
        self.multi_precision = multi_precision
        self.rescale_grad = 1.0
        self.param_groups: list[ParameterGroup] = []
        self._members: list[list[Slot]] = []  # of each group
        self._columns: list[tuple[list[Any], list[Parameter], list[Any]]] = []  # of each group
        self._slots: list[Slot] = []
        self._of_tensors = False
        self.steps = Steps()
        for group in as_groups(params):
            self.add_param_group(group)

    # What a subclass defines.

    def rule(self, group: Options) -> Rule:
        """The rule, as the options of `group` ask for it."""
        raise NotDefinedError(f"{type(self).__name__} must define rule and scalars, or construct")

    def scalars(self, at: Step) -> tuple[float, ...]:
        """Learning rate and weight decay as the rule takes them, then the rule's own hyper-parameters in its order."""
        raise NotDefinedError(f"{type(self).__name__} must define scalars")

    def hand_on(self, at: Step) -> float:
        """The number that an update hands on to the next one of its parameter, where `carried` has a name for it."""
        return at.carry

    def rests(self, group: Options) -> bool:
        """Whether an element whose gradient is 0 stays as it is, so that only rows with a gradient need a visit."""
        return False

    def new_state(self, name: str, weight: Any, group: Options) -> Any:
        """The state `name` of a new parameter."""
        return arrays.zeros(weight.shape, weight)

    def uses_master(self, weight: Any) -> bool:
        """Whether `weight` is updated by way of a float32 copy."""
        return bool(self.multi_precision and weight.dtype.itemsize == 2)

    # Groups.

    @property
    def slots(self) -> list[Slot]:
        """What is kept of each parameter, in the order of their gradients."""
        return self._slots

    @property
    def parameters(self) -> list[Any]:
        """All parameters as they were given, in the order of their gradients."""
        return [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: Options) -> None:
        """Adds parameters, at the end. `param_group` has "params" and may have options of its own.

        Raises what the constructor raises; nothing has been changed then.
        """
        number = len(self.param_groups)
        whose = f"{type(self).__name__}, group {number}"
        if not isinstance(param_group, dict):
            raise ArgumentTypeError(f"{whose} must be a dict, got {type(param_group).__name__}")
        if "params" not in param_group:
            raise ArgumentError(f"{whose} has no 'params'")
        check_keys(param_group, self.defaults, self.names, whose)
        params, slots = make_slots(param_group["params"], number, self._slots, self.first_carry)
        options = {**self.defaults, **param_group, "params": params}
        ours = {name: check for name, check in self.checks.items() if name in self.defaults or name == "initial_lr"}
        self.param_groups.append(ParameterGroup(options, ours, whose))
        self._members.append(slots)
        self._slots = self._slots + slots
        self._columns.append(_columns(slots))
        self._of_tensors = any(slot.parameter.lender is not None for slot in self._slots)
        self.steps = Steps(PATTERNS * len(self._members))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for slot in self._slots:  # a copy of a tensor is updated by way of its own memory
            slot.weight, slot.parameter.held = slot.parameter.value, True
        self._columns = list(map(_columns, self._members))

    # Updates.

    def __call__(self, gradients: Any) -> None:
        """Updates all parameters in place by their gradients.

        Parameters
        ----------
        gradients : tuple or list
            One for each of `parameters`: an array of its shape, a `RowSparse`, anything that lends its memory, or None,
            which leaves the parameter and its states alone.

        Raises
        ------
        ArrayError
            A gradient doesn't fit its parameter, which the message names. Nothing has been changed then.
        ArgumentError
            There are more or fewer gradients than parameters.
        """
        self.construct(gradients)

    def construct(self, *hyper_params: Any) -> None:
        """What a call does. A subclass without a rule defines this."""
        (gradients,) = hyper_params
        try:
            grads = self._gradients(gradients)
            self.apply(None, self._slots, grads, self._count)
        except BaseException:  # states and master copies of an update that failed would be out of date
            for slot in self._slots:
                slot.arrays = slot.arrays if slot.step else {}
            self.steps.clear()
            raise
        if self._of_tensors:
            written(slot.parameter for slot, grad in zip(self._slots, grads, strict=True) if grad is not None)

    def apply(
        self,
        key: Hashable,
        slots: list[Slot],
        grads: list[Any],
        count: Callable[[list[Slot], list[float]], Iterable[object]],
    ) -> None:
        """Updates parameters by their gradients, None for none. Calls of the same parameters have the same `key`.

        `count(slots, carries)` for parts of them, with the numbers that they hand on, counts an update with it: an
        iterator that calls functions of C.
        Raises ArrayError, and changes nothing, where one can't be updated.
        """
        if type(None) in set(map(type, grads)):
            given = [grad is not None for grad in grads]
            key, slots, grads = (key, *given), list(compress(slots, given)), list(compress(grads, given))
        updates = []
        for group, mine, its in self._by_group(slots, grads):
            number = mine[0].group
            whole = number < len(self._members) and mine is self._members[number]
            weights, params, reals = self._columns[number] if whole else _columns(mine)
            calls = self._calls(key, group, mine, weights, its)
            updates.append((mine, calls, *self._rows(group, mine, params, reals)))
        for mine, calls, rows, which, carries in updates:
            run(calls, rows, which, count(mine, carries))

    def _count(self, slots: list[Slot], carries: list[float]) -> Iterable[object]:
        counted = map(setattr, slots, repeat("step"), [slot.step + 1 for slot in slots])
        return chain(counted, map(setattr, slots, repeat("carry"), carries)) if carries else counted

    def _by_group(self, slots: list[Slot], grads: list[Any]) -> list[tuple[ParameterGroup, list[Slot], list[Any]]]:
        if slots is self._slots:
            if len(self._members) == 1 and slots:
                return [(self.param_groups[0], self._members[0], grads)]
            left = iter(grads)
            pairs = zip(self.param_groups, self._members, strict=True)
            return [(group, mine, list(islice(left, len(mine)))) for group, mine in pairs if mine]
        parts: dict[int, tuple[list[Slot], list[Any]]] = {}
        for slot, grad in zip(slots, grads, strict=True):
            mine, its = parts.setdefault(slot.group, ([], []))
            mine.append(slot)
            its.append(grad)
        return [(self.param_groups[number], *part) for number, part in parts.items()]

    def _calls(
        self, key: Hashable, group: ParameterGroup, slots: list[Slot], weights: list[Any], grads: list[Any]
    ) -> list[Call]:
        rule, lazy = self.rule(group), group["lazy_update"] or self.rests(group)
        key = (slots[0].group, key)
        found = self.steps.find(key, rule, lazy, weights, grads, slots)
        if found is None:
            tensors = [
                Tensor(slot.place, slot.weight, grad, *self._states(slot, rule, group))
                for slot, grad in zip(slots, grads, strict=True)
            ]
            found = self.steps.make(key, rule, lazy, tensors, slots)
        return found

    def _states(self, slot: Slot, rule: Rule, group: Options) -> tuple[tuple[Any, ...], Any]:
        """The arrays of a rule's states, and the master copy where there is one, made if they aren't there yet."""
        kept, source = slot.arrays, slot.weight
        if self.uses_master(slot.weight):
            if "master" not in kept:
                kept["master"] = slot.weight.astype(np.float32)
            source = kept["master"]
        for name in rule.states:
            if name not in kept:
                kept[name] = self.new_state(name, source, group)
        return tuple(kept[name] for name in rule.states), kept.get("master")

    def _rows(
        self, group: ParameterGroup, slots: list[Slot], params: list[Parameter], reals: list[Any]
    ) -> tuple[list[tuple[float, ...]], list[int], list[float]]:
        """The distinct rows of hyper-parameters, for each parameter which is its own, and what each hands on."""
        kinds, which = distinct(
            [
                [slot.step for slot in slots],
                [slot.carry for slot in slots] if self.carried else [self.first_carry] * len(slots),
                reals,
                [param.lr_mult for param in params],
                [param.wd_mult for param in params],
            ]
        )
        steps = [
            Step(group, group["lr"] * lr_mult, group.get("weight_decay", 0.0) * wd_mult, step + 1, carry, real)
            for step, carry, real, lr_mult, wd_mult in kinds
        ]
        scale = -self.rescale_grad if group["maximize"] else self.rescale_grad
        rows = []
        for at in steps:
            lr, wd, *own = self.scalars(at)
            rows.append((lr, wd, scale, math.inf, *own))
        if not self.carried:
            return rows, which, []
        carries = [self.hand_on(at) for at in steps]
        return rows, which, [carries[row] for row in which]

    def _gradients(self, gradients: Any) -> list[Any]:
        """NumPy, CuPy or row-sparse arrays, and None for what is not to be changed."""
        if not isinstance(gradients, tuple | list):
            raise ArgumentTypeError(f"{type(self).__name__}: gradients must be a tuple, got {type(gradients).__name__}")
        if len(gradients) != len(self._slots):
            raise ArgumentError(
                f"{type(self).__name__}: got {len(gradients)} gradients for {len(self._slots)} parameters"
            )
        found = list(gradients)
        if set(map(type, found)) != {np.ndarray}:
            pairs = zip(found, self._slots, strict=True)
            found = [g if g is None else arrays.as_gradient(g, f"{slot.place}, gradient") for g, slot in pairs]
        if any(False in [param.requires_grad for param in params] for _, params, _ in self._columns):
            pairs = zip(found, self._slots, strict=True)
            found = [g if slot.parameter.requires_grad else None for g, slot in pairs]
        return found

    # Saving.

    def state_dict(self) -> dict[str, Any]:
        """All options and states, by parameter name, as plain data and copies of the arrays: what
        `mxopt.document.dump_document` can carry. Training goes on from it to the last bit, given the same weights."""
        return saving.state_dict(self, self._members)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` returned. The parameters' own values are not in there.

        Raises StatesError, which lists what differs, where it was made by another optimizer or for other
        parameters; nothing has been changed then.
        """
        saving.load_state_dict(self, self._members, state_dict)
        self.steps.clear()

    def __repr__(self) -> str:
        groups = "\n".join(
            f"  group {k}: {len(group['params'])} parameters, "
            + ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
            for k, group in enumerate(self.param_groups)
        )
        return f"{type(self).__name__}\n{groups}"
