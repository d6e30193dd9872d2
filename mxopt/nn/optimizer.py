"""The base class of `mxopt.nn`'s optimizers, as `mindspore.nn.Optimizer` documents it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mxopt.arguments import arguments_of
from mxopt.engine import Steps, arrays
from mxopt.errors import ArgumentError, ArgumentTypeError, NotDefinedError, counted
from mxopt.nn import flat, gradients as g
from mxopt.nn.learning_rate_schedule import LearningRateSchedule
from mxopt.nn.options import Decays, Parameters, Rates, Scale
from mxopt.nn.parameters import (
    Decay,
    ParameterGroup,
    ParameterTuple,
    as_decay,
    as_rate,
    decay_at,
    rate_at,
    read,
    scaled_decay,
)
from mxopt.nn.saving import SavedOptimizer
from mxopt.optimizer.grouped import Slot
from mxopt.options import flag
from mxopt.overrides import overridden
from mxopt.parameter import Parameter
from mxopt.registry import Registry
from mxopt.state_dtype import Seed, StateDtype, Stored, warn_of_nearest, without_rule
from mxopt.typing import Array, Document, Gradients

TARGETS = ("CPU", "GPU", "Ascend")


class Optimizer(SavedOptimizer):
    """The base of all optimizers: learning rate, weight decay, loss scale and groups of parameters.

    A subclass defines `construct(gradients)`, which updates `self.parameters` in place, with the
    help of `decay_weight`, `gradients_centralization`, `scale_grad`, `get_lr` and the other methods
    below. It is called as `optimizer(gradients)`, with one gradient for each parameter, in their
    order.

    `state_dict()` is what a resumed run needs to give the same bits, as plain data and copies of
    the arrays: the step, the fixed learning rates, and the states, which are the attributes that
    are a `ParameterTuple`, as `self.parameters.clone` makes them. `load_state_dict` takes it.

    Attributes
    ----------
    parameters : ParameterTuple
        In the order of gradients; a plain array becomes a `Parameter` over its memory.
    learning_rate : Parameter or LearningRateSchedule, or a tuple of them where groups have their
    own
        A fixed rate is a parameter without axes: `optimizer.learning_rate.set_data(np.array(0.01))`
        changes it.
    weight_decay : float or function of the step, or a tuple of them where there are groups
        Times the loss scale.
    decay_flags : tuple of bool
        For each parameter whether weight decay applies to it.
    reciprocal_scale : float
        1 / loss_scale; `need_scale` says whether that differs from 1.
    param_length : int
        The number of parameters.
    is_group, is_group_lr, is_group_params_ordered, grad_centralization, dynamic_lr,
    dynamic_weight_decay : bool
        What the groups say.
    global_step : int
        The number of steps taken.

    Raises
    ------
    TypeError
        The learning rate, an element of `parameters`, `weight_decay` or `loss_scale` is of a wrong
        type.
    ValueError
        The weight decay or the learning rate is below 0, the loss scale isn't above 0, an array of
        learning rates has several axes, or a parameter can't be updated in place.
    KeyError
        A group has an unknown key.
    RuntimeError
        A parameter is given twice.
    """

    learning_rate: Any
    global_step: int
    has_rule: ClassVar[bool] = False  # whether a step is a rule's
    undecayed: ClassVar[tuple[str, ...]] = ("beta", "gamma")
    registry: ClassVar[Registry] = Registry("optimizer of mxopt.nn", "derive it from Optimizer")  # all subclasses
    given: Document  # the arguments it was made with

    if not TYPE_CHECKING:

        def __new__(cls, *args: object, **kwargs: object) -> Any:
            made = super().__new__(cls, *args, **kwargs)
            made.given = {**dict(zip(arguments_of(cls), args, strict=False)), **kwargs}
            return made

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        Optimizer.registry.add(cls.__name__, cls)

    def __init__(
        self,
        learning_rate: Rates,
        parameters: Parameters,
        weight_decay: Decays = 0.0,
        loss_scale: Scale = 1.0,
        *,
        state_dtype: Stored = None,
        seed: Seed = None,
    ) -> None:
        owner = type(self).__name__
        if state_dtype is not None and not self.has_rule:
            raise without_rule(owner)
        self.state_dtype: StateDtype = state_dtype
        self.seed = seed
        every = ParameterGroup(as_rate(learning_rate, owner), as_decay(weight_decay, owner))
        slots, groups, is_ordered = read(parameters, every, owner)
        for slot in slots:
            warn_of_nearest(slot.weight, state_dtype)
        if groups:
            flags = [groups[slot.group].decay != 0 for slot in slots]
        else:
            flags = [not any(part in (slot.parameter.name or "") for part in self.undecayed) for slot in slots]
            for slot, decays in zip(slots, flags, strict=True):
                slot.group = int(not decays)
        self.decay_flags: tuple[bool, ...] = tuple(flags)
        self.is_group_params_ordered = is_ordered
        used = list(dict.fromkeys(slot.group for slot in slots))
        for slot in slots:
            slot.group = used.index(slot.group)
        choice = groups or [every, replace(every, decay=0.0)]
        self._set_up(slots, [choice[k] for k in used], every, float(loss_scale), bool(groups))

    def _set_up(
        self, slots: list[Slot], groups: list[ParameterGroup], every: ParameterGroup, loss_scale: float, is_group: bool
    ) -> None:
        self._hold(slots)
        self.steps: Steps = Steps()
        self.groups = groups
        self._every = every
        self.parameters: ParameterTuple = ParameterTuple(s.parameter for s in slots)
        self.loss_scale = loss_scale
        self.is_group = is_group
        self.overridden = overridden(type(self), self.overridable)
        self.is_group_lr: bool = any(group.rate is not every.rate for group in groups)
        self.param_length: int = len(slots)
        self.grad_centralization: bool = any(group.centralized for group in groups)
        self.dynamic_lr: bool = any(isinstance(of.rate, LearningRateSchedule) for of in (every, *groups))
        self.learning_rate = tuple(groups[s.group].rate for s in slots) if self.is_group_lr else every.rate
        self._unique = True

    @property
    def dynamic_weight_decay(self) -> bool:
        """Whether a weight decay depends on the step."""
        return any(callable(of.decay) for of in (self._every, *self.groups))

    # A step.

    def __call__(self, *hyper_params: Gradients) -> Any:
        """Takes a step with these gradients, and counts it once it is done."""
        following = self.global_step + 1
        result = self.construct(*hyper_params)
        self.global_step = following  # a rule's step has counted itself already
        if self._of_tensors:
            self._tell(hyper_params[0])
        return result

    if TYPE_CHECKING:  # a subclass may name what it takes

        def construct(self, *hyper_params: Any, **keywords: Any) -> Any: ...

    else:

        def construct(self, *hyper_params: Any) -> Any:
            """Updates the parameters by the gradients, the only argument. Subclasses define
            this."""
            raise NotDefinedError(f"{type(self).__name__} must define construct(gradients)")

    # Learning rate, weight decay and loss scale.

    overridable: ClassVar[tuple[str, ...]] = (
        "get_lr", "get_weight_decay", "decay_weight", "gradients_centralization", "scale_grad",
    )  # fmt: skip
    overridden: frozenset[str] = frozenset()  # those of `overridable` that a class from outside mxopt defines

    @property
    def need_scale(self) -> bool:
        """Whether gradients must be divided by the loss scale."""
        return self.loss_scale != 1

    @property
    def reciprocal_scale(self) -> float:
        """1 / loss scale, by which gradients are multiplied."""
        return 1 / self.loss_scale

    @property
    def weight_decay(self) -> Decay | tuple[Decay, ...]:
        """The weight decay, a number or a function of the step, times the loss scale; a tuple with
        one for each parameter if there are groups. `get_weight_decay` gives the numbers of this
        step."""
        if not self.is_group:
            return scaled_decay(self._every.decay, self.loss_scale)
        return tuple(scaled_decay(self.groups[slot.group].decay, self.loss_scale) for slot in self._slots)

    def get_lr(self) -> float | tuple[float, ...]:
        """The learning rate of this step; a tuple with one for each parameter if groups or
        `lr_mult` make them differ."""
        rates = tuple(self._rates())
        return rates if self.is_group_lr or any(p.lr_mult != 1 for p in self.parameters) else rates[0]

    def step_rates(self) -> list[float]:
        """The learning rate of each parameter at this step, as `get_lr` gives it."""
        return self._each("get_lr", self.get_lr()) if "get_lr" in self.overridden else self._rates()

    def _rates(self) -> list[float]:
        now = [rate_at(group.rate, self.global_step) for group in self.groups]
        return [now[slot.group] * slot.parameter.lr_mult for slot in self._slots]

    def get_weight_decay(self) -> float | tuple[float, ...]:
        """The weight decay of this step times the loss scale, since `decay_weight` comes before
        `scale_grad`; a tuple with one for each parameter if there are groups or `wd_mult` makes
        them differ.
        """
        if not self.is_group and all(p.wd_mult == 1 for p in self.parameters):
            return decay_at(self._every.decay, self.global_step) * self.loss_scale
        return tuple(decay * self.loss_scale for decay in self._decays())

    def step_decays(self) -> list[float]:
        """The weight decay of each parameter at this step times the loss scale, as
        `get_weight_decay` gives it; 0 where `decay_flags` is False."""
        if "get_weight_decay" not in self.overridden:
            return [decay * self.loss_scale for decay in self._decays()]
        decays = self._each("get_weight_decay", self.get_weight_decay())
        return [decay if flag else 0.0 for decay, flag in zip(decays, self.decay_flags, strict=True)]

    def _each(self, method: str, values: Any) -> list[float]:
        """What a subclass's method returned, for each parameter."""
        owner, n = type(self).__name__, len(self._slots)
        listed = list(values) if isinstance(values, tuple | list) else [values] * n
        if len(listed) != n:
            raise ArgumentError(
                f"{owner}.{method} returned {counted(len(listed), 'number')} for {counted(n, 'parameter')}"
            )
        try:
            return [float(x.asnumpy() if isinstance(x, Parameter) else x) for x in listed]
        except (TypeError, ValueError):
            raise ArgumentTypeError(
                f"{owner}.{method} must return a number, or one for each parameter, got {values!r:.80}"
            ) from None

    def _decays(self) -> list[float]:
        now = [decay_at(group.decay, self.global_step) for group in self.groups]
        return [now[slot.group] * slot.parameter.wd_mult for slot in self._slots]

    def get_lr_parameter(self, param: Any) -> Any:
        """The source of a parameter's learning rate: a Parameter without axes, or a
        LearningRateSchedule.

        A list gives a list. Raises TypeError for anything but parameters, ValueError for another
        optimizer's.

        >>> w, b = Parameter(np.ones(2)), Parameter(np.zeros(2))
        >>> optimizer = Optimizer(0.1, [{"params": [w], "lr": 0.05}, {"params": [b]}])
        >>> [rate.asnumpy().item() for rate in optimizer.get_lr_parameter([w, b])]
        [0.05, 0.1]
        """
        if isinstance(param, list):
            return [self.get_lr_parameter(p) for p in param]
        for slot in self._slots:
            if param is slot.parameter or param is slot.given:
                return self.groups[slot.group].rate
        if not isinstance(param, Parameter | np.ndarray) and not arrays.is_cupy(param):
            raise ArgumentTypeError(
                f"get_lr_parameter: needs a parameter or a list of them, got {type(param).__name__}"
            )
        raise ArgumentError(f"get_lr_parameter: this optimizer doesn't have {param!r:.80}")

    # Gradients.

    def decay_weight(self, gradients: Sequence[Array]) -> tuple[Array, ...]:
        """The gradients plus weight decay times loss scale times the parameters; new arrays unless
        the decay is 0."""
        return tuple(
            grad if grad is None or not decay else g.decayed(grad, slot.parameter.value, decay)
            for grad, slot, decay in zip(self._listed(gradients), self._slots, self.step_decays(), strict=True)
        )

    def gradients_centralization(self, gradients: Sequence[Array]) -> tuple[Array, ...]:
        """The gradients; in groups with `grad_centralization` minus their mean over all axes but
        the first."""
        return tuple(
            g.centralized(grad) if self.groups[slot.group].centralized and grad is not None else grad
            for grad, slot in zip(self._listed(gradients), self._slots, strict=True)
        )

    def scale_grad(self, gradients: Sequence[Array]) -> tuple[Array, ...]:
        """The gradients divided by the loss scale."""
        if not self.need_scale:
            return tuple(gradients)
        return tuple(None if grad is None else grad * self.reciprocal_scale for grad in gradients)

    def flatten_gradients(self, gradients: Sequence[Array]) -> tuple[Array, ...]:
        """One gradient for each of `flat_parameters`.

        If the parameters of each dtype are contiguous in memory, and all share a learning rate,
        this is one vector for each dtype; otherwise the gradients as they are. Call it last:
        `decay_weight` and the like need one gradient for each parameter.
        """
        listed, positions = self._listed(gradients), self._chunks()
        if positions is None:
            return tuple(listed)
        return tuple(flat.flattened(listed, [p.value for p in self.parameters], positions))

    @property
    def flat_parameters(self) -> ParameterTuple:
        """The parameters as `flatten_gradients` arranges their gradients, as vectors over the
        parameters' own memory."""
        positions = self._chunks()
        if positions is None:
            return self.parameters
        parts = [[self.parameters[k].value for k in chunk] for chunk in positions]
        return ParameterTuple(Parameter(flat.joined(part), f"flat.{part[0].dtype}") for part in parts)

    def _chunks(self) -> list[list[int]] | None:
        return None if isinstance(self.get_lr(), tuple) else flat.chunks([p.value for p in self.parameters])

    # Where and how MindSpore runs a step.

    def broadcast_params(self, optim_result: object) -> bool:
        """Whether the update succeeded. There is only one process, so nothing is sent."""
        return bool(optim_result)

    @property
    def target(self) -> str:
        """'GPU' for CuPy's arrays, else 'CPU'. Optimizers with a rule may set it to where the
        arrays are, which changes nothing; others raise NotImplementedError."""
        return "GPU" if arrays.is_cupy(self.parameters[0].value) else "CPU"

    @target.setter
    def target(self, value: str) -> None:
        owner = type(self).__name__
        if not self.has_rule:
            raise NotDefinedError(f"{owner}: the parameters' arrays say where they are updated")
        if not isinstance(value, str):
            raise ArgumentTypeError(f"{owner}: target must be a text, got {value!r}")
        if value not in TARGETS or (value != "CPU" and self.target == "CPU"):
            raise ArgumentError(f"{owner}: target must be where the parameters are, {self.target!r}, got {value!r}")

    @property
    def unique(self) -> bool:
        """Whether row-sparse gradients may name a row twice. Without effect, since
        `row_sparse_array` adds such rows up."""
        return self._unique

    @unique.setter
    def unique(self, value: bool) -> None:
        self._unique = flag(f"{type(self).__name__}: unique", value)

    def __repr__(self) -> str:
        groups: dict[tuple[str, str], int] = {}
        for slot in self._slots:
            group = self.groups[slot.group]
            decay = group.decay if isinstance(group.decay, float | LearningRateSchedule) else "a function"
            rate = f"{group.rate.asnumpy().item():g}" if isinstance(group.rate, Parameter) else repr(group.rate)
            groups[rate, str(decay)] = groups.get((rate, str(decay)), 0) + 1
        lines = [f"  {counted(n, 'parameter')}: learning_rate={r}, weight_decay={d}" for (r, d), n in groups.items()]
        return "\n".join([f"{type(self).__name__}, step {self.global_step}", *lines])
