"""The base of the experimental optimizers: groups of parameters, their options, and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from mxopt.arguments import declared_of
from mxopt.engine import Steps, arrays
from mxopt.engine.steps import PATTERNS
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError, counted
from mxopt.experimental.optim.groups import (
    Options,
    ParameterGroup,
    as_groups,
    check_keys,
    checked,
    make_slots,
)
from mxopt.experimental.optim.options import COMMON, Lazy, Masters
from mxopt.optimizer.grouped import GroupedOptimizer, Slot, Step
from mxopt.optimizer.saving import Kept, differences
from mxopt.options import Declared, Option, declared
from mxopt.registry import Registry
from mxopt.rules.rule import Rule
from mxopt.state_dtype import Seed, StateDtype, Stored, check, dtype_of, warn_of_nearest, without_rule
from mxopt.typing import Array, Document, Gradients, Params, Plain


class Optimizer(GroupedOptimizer):
    """The base of all experimental optimizers. Subclasses define `rule` and `scalars`, or
    `construct`.

    They train float16, bfloat16, float32 or float64 arrays of any shape, plain or as
    `mxopt.Parameter`; anything that lends its memory (a `torch.Tensor` on the CPU) is used without
    a copy. Parameters may come in groups: dicts with "params" and options of their own.

    `state_dict()` is what a resumed run needs to give the same bits, as plain data and copies of
    the arrays: all options, counts and states by the parameters' names. `load_state_dict` takes it.

    Attributes
    ----------
    param_groups : list of dict
        Each with "params" and all options, which may be changed between steps.
    parameters : list
        All parameters as they were given, in the order of gradients.
    rescale_grad : float
        Gradients are multiplied by this first; 1 unless a `Trainer` divides by a batch size.

    Raises
    ------
    ValueError
        There are no parameters, one is given twice, or a number is out of its range.
    TypeError
        `params` isn't a list, or holds something that lends no memory. An option of a wrong type
        raises both.
    KeyError
        A group has an option of another family, or a misspelt one.
    """

    checks: ClassVar[Mapping[str, Declared]] = COMMON
    names: ClassVar[set[str]] = set()  # of the options of all optimizers
    registry: ClassVar[Registry] = Registry("experimental optimizer", "derive it from Optimizer")  # all subclasses

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        Optimizer.registry.add(cls.__name__, cls)
        cls.checks = {**COMMON, **declared_of(cls)}
        Optimizer.names.update(declared(cls.__init__))

    def __init__(
        self,
        params: Annotated[Params, Option("", "a list of arrays or Parameters, or of dicts")],
        defaults: Annotated[Options, Option("", "the options, and their values for groups that don't say otherwise")],
        *,
        multi_precision: Masters = False,
        lazy_update: Lazy = False,
        state_dtype: Stored = None,
        seed: Seed = None,
    ) -> None:
        options = {"lazy_update": lazy_update, "maximize": False, **defaults}
        self.defaults: Options = checked(options, self.checks, type(self).__name__)
        self.multi_precision = multi_precision
        self.state_dtype: StateDtype = state_dtype
        self.seed = seed
        self.param_groups: list[ParameterGroup] = []
        self._slots = []
        for group in as_groups(params):
            self.add_param_group(group)

    # What a subclass defines.

    def rule(self, group: Options) -> Rule:
        """The rule for the options of `group`."""
        raise NotDefinedError(f"{type(self).__name__} must define rule and scalars, or construct")

    def scalars(self, at: Step) -> tuple[float, ...]:
        """Learning rate and weight decay as the rule takes them, then the rule's own
        hyper-parameters in its order."""
        raise NotDefinedError(f"{type(self).__name__} must define scalars")

    def rests(self, group: Options) -> bool:
        """Whether elements with a gradient of 0 don't change, so that only rows with a gradient
        need an update."""
        return False

    def new_state(self, name: str, weight: Array, group: Options) -> Array:
        """The state `name` of a new parameter."""
        shape = self.rule(group).state_shape(name, tuple(weight.shape))
        return arrays.zeros(shape, weight, dtype_of(self.state_dtype, weight))

    # Groups.

    @property
    def _members(self) -> list[list[Slot]]:
        """The slots of each group."""
        return [[slot for slot in self._slots if slot.group == k] for k in range(len(self.param_groups))]

    @property
    def parameters(self) -> list[Array]:
        """All parameters as they were given, in the order of their gradients."""
        return [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: Options) -> None:
        """Adds a group of parameters. `param_group` has "params", and may have options of its own.

        Raises what the constructor raises, and then changes nothing.
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
        group = ParameterGroup(options, ours, whose, self.names)
        if self.state_dtype is not None:
            try:
                check(self.state_dtype, self.rule(group), type(self).__name__)
            except NotDefinedError:
                raise without_rule(type(self).__name__) from None
            except AttributeError:  # the rule needs what a constructor sets later: the first step checks again
                pass
        for slot in slots:
            slot.own = self.own(slot.weight)
            if not self.uses_master(slot.weight):
                warn_of_nearest(slot.weight, self.state_dtype)
        uninterrupted(partial(self._join, group, slots))

    def _join(self, group: ParameterGroup, slots: list[Slot]) -> None:
        self.param_groups.append(group)
        self._hold(self._slots + slots)
        self.steps: Steps = Steps(PATTERNS * len(self.param_groups))

    # Updates.

    def __call__(self, gradients: Gradients) -> None:
        """Updates all parameters in place by their gradients.

        Parameters
        ----------
        gradients : tuple or list
            One for each of `parameters`: an array of its shape, a `RowSparse`, anything that lends
            its memory, or None, which leaves the parameter and its states alone.

        Raises
        ------
        ArrayError
            A gradient doesn't fit its parameter, which the message names. Then nothing has been
            changed.
        ArgumentError
            There are more or fewer gradients than parameters.
        """
        self.construct(gradients)

    if TYPE_CHECKING:  # a subclass may name what it takes

        def construct(self, *hyper_params: Any, **keywords: Any) -> None: ...

    else:

        def construct(self, *hyper_params: Any) -> None:
            """Makes a step. A subclass without a rule defines this."""
            (gradients,) = hyper_params
            try:
                grads = self._gradients(gradients)
                self.apply(None, self._slots, self._of_trained(grads), self._count)
            except BaseException:  # drop new states and master copies: they could go out of date
                for slot in self._slots:
                    slot.arrays = slot.arrays if slot.step else {}
                self.steps.clear()
                raise
            if self._of_tensors:
                self._tell(grads)

    def _count(self, slots: Sequence[Slot], steps: Iterable[int], carries: Iterable[float]) -> Iterable[object]:
        done = map(setattr, slots, repeat("step"), steps)
        return chain(done, map(setattr, slots, repeat("carry"), carries)) if carries else done

    def repeat(self, places: Sequence[int], first: Iterable[object]) -> bool:
        """Makes a step with gradients at these addresses, if `apply_again` can; that says what the
        caller must know. Goes through `first` right before the update. Returns whether it did."""
        return self.apply_again(None, places, lambda *of: chain(first, self._count(*of)))

    def _rule_of(self, group: int) -> tuple[Rule, bool]:
        options = self.param_groups[group]
        return self.rule(options), options["lazy_update"] or self.rests(options)

    def _rates_of(self, group: int, step: int) -> tuple[ParameterGroup, float, float]:
        options = self.param_groups[group]
        return options, options["lr"], options.get("weight_decay", 0.0)

    def _states_of(self, slot: Slot, rule: Rule) -> tuple[tuple[Array, ...], Array]:
        kept, source = slot.arrays, slot.weight
        if self.uses_master(slot.weight):
            if "master" not in kept:
                kept["master"] = slot.weight.astype(np.float32)
            source = kept["master"]
        for name in rule.states:
            if name not in kept:
                kept[name] = self.new_state(name, source, self.param_groups[slot.group])
        return tuple(kept[name] for name in rule.states), kept.get("master")

    def _hypers(self, at: Step) -> tuple[float, ...]:
        own, scale = self.scalars(at), self.rescale_grad
        return (own[0], own[1], -scale if at.group["maximize"] else scale, math.inf, *own[2:])

    # Saving.

    def keys(self) -> list[str]:
        return [slot.name for slot in self._slots]

    def kept(self) -> Plain:
        found: Plain = {}
        for slot in self._slots:
            if slot.step:
                numbers = {"step": slot.step, self.carried: slot.carry}
                names = self._wanted(slot, self.param_groups[slot.group])
                found[slot.name] = {n: numbers[n] if n in numbers else slot.arrays[n].copy() for n in names}
        return found

    def _wanted(self, slot: Slot, options: Options) -> Plain:
        """What must be saved of a parameter that has been updated."""
        single = np.dtype(np.float32)
        master = {"master": single} if self.uses_master(slot.weight) else {}
        dtype = dtype_of(self.state_dtype, slot.weight) or (single if master else slot.weight.dtype.newbyteorder("="))
        rule, whole = self.rule(options), tuple(slot.weight.shape)
        dtypes = {**dict.fromkeys(rule.states, dtype), **master}
        numbers = {"step": int, **({self.carried: float} if self.carried else {})}
        return {**numbers, **{name: (rule.state_shape(name, whole), dtype) for name, dtype in dtypes.items()}}

    def _laid_out(self, kept: Kept) -> Plain:
        pairs = zip(self.param_groups, self._members, strict=True)
        groups = [{**group, "params": [slot.name for slot in slots]} for group, slots in pairs]
        return {"param_groups": groups, "state": kept}

    def _fit(self, document: Document) -> tuple[list[str], Callable[[], None]]:
        groups = [{**group, "params": list(group["params"])} for group in document["param_groups"]]
        state = {key: dict(kept) for key, kept in document["state"].items()}
        if len(groups) != len(self.param_groups):
            wrong = [f"they have {counted(len(groups), 'group')}, the optimizer {len(self.param_groups)}"]
        else:
            each = zip(self.param_groups, groups, self._members, strict=True)
            wrong = [d for own, new, slots in each for d in own.fit(new, [s.name for s in slots], self.defaults)]
        if not wrong:
            wrong += [f"a state for {key!r}, which is no parameter" for key in state if key not in self.keys()]
            for slot in self._slots:
                if slot.name in state:
                    wrong += differences(slot.place, self._wanted(slot, groups[slot.group]), state[slot.name])

        def take() -> None:
            for group, new in zip(self.param_groups, groups, strict=True):
                group.update(new)
            for slot in self._slots:
                kept = state.get(slot.name, {})
                slot.step, slot.carry = kept.pop("step", 0), kept.pop(self.carried or "", self.first_carry)
                slot.arrays = {name: arrays.to_device_of(array.copy(), slot.weight) for name, array in kept.items()}
            self.steps.clear()

        return wrong, take

    def __repr__(self) -> str:
        groups = "\n".join(
            f"  group {k}: {counted(len(group['params']), 'parameter')}, "
            + ", ".join(f"{key}={value!r}" for key, value in group.items() if key != "params")
            for k, group in enumerate(self.param_groups)
        )
        return f"{type(self).__name__}\n{groups}"
