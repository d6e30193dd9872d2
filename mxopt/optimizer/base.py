"""The registry and the base class of optimizers, as in `mxnet.optimizer`: hyper-parameters, states,
and what stores ask of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from mxopt.arguments import NamedArguments, check_kept, parameters_of
from mxopt.caller import warn
from mxopt.engine import arrays
from mxopt.errors import (
    ArgumentError,
    ArgumentTypeError,
    MXOptError,
    NotDefinedError,
    RemovedError,
    UnknownNameError,
    WarnedUsageError,
    nearest,
)
from mxopt.lr_scheduler import warn_of_climbing
from mxopt.optimizer.counts import LISTS, Index, Schedule
from mxopt.optimizer.multipliers import attributes_of
from mxopt.optimizer.rounded import Rounded
from mxopt.options import Exact, Option, number, plain
from mxopt.overrides import overridden
from mxopt.registry import Registry, same_class
from mxopt.state_dtype import Seed, Stored
from mxopt.typing import Array, Plain, State

__all__ = ["LISTS", "Index", "Optimizer", "register"]

O = TypeVar("O", bound=type)  # noqa: E741


def check_schedule(given: object, whose: str = "") -> None:
    """Raises ArgumentTypeError for what can't be asked for a rate."""
    if isinstance(given, type) or not callable(given):
        raise ArgumentTypeError(
            f"{whose}lr_scheduler must be a schedule, called with the number of updates, got {given!r}"
        )


class Optimizer(NamedArguments, Rounded):
    """The base of all optimizers.

    Raises
    ------
    ValueError
        A number is NaN or out of its range.
    TypeError
        An argument doesn't exist; the message names similar ones.
    """

    opt_registry: ClassVar[dict[str, type[Optimizer]]] = {}  # what `create` makes
    registry: ClassVar[Registry] = Registry("optimizer", "decorate it with @mxopt.register")  # what may be saved
    overridable: ClassVar[tuple[str, ...]] = (
        "update", "update_multi_precision", "create_state", "create_state_multi_precision", "_update_count",
        "_get_lr", "_get_lrs", "_get_wd", "_get_wds",
    )  # fmt: skip
    elsewhere: ClassVar[Mapping[str, str]] = {
        "nesterov": "create('nag') is SGD with Nesterov's momentum",
        "amsgrad": "mxopt.experimental.optim.Adam and mxopt.nn.Adam have it",
        "decoupled_weight_decay": "create('adamw') has its weight decay apart from the gradient",
    }
    drawn_seed: int | None = None  # the seed, if it was drawn because none was given
    overridden: frozenset[str] = frozenset()  # those of `overridable` that a class from outside mxopt defines

    def __init__(
        self,
        rescale_grad: Annotated[
            float, Option("", "gradients are multiplied by this first; often 1 / batch size")
        ] = 1.0,
        param_idx2name: Annotated[
            Mapping[int, str] | None,
            Option("", "names of the parameters, for `set_lr_mult` and `set_wd_mult`", kept="idx2name"),
        ] = None,
        wd: Annotated[float, Option("", "weight decay")] = 0.0,
        clip_gradient: Annotated[
            float | None,
            Option("", "gradients are limited to [-clip_gradient, clip_gradient]; None, 0 and less mean no limit"),
        ] = None,
        learning_rate: Annotated[
            float | None,
            Option(
                "",
                "without it, 0.01, or the scheduler's rate. With a scheduler it overwrites the scheduler's `base_lr`",
                kept="lr",
            ),
        ] = None,
        lr_scheduler: Annotated[
            Schedule | None, Option("", "gives the learning rate for the number of updates")
        ] = None,
        sym: Annotated[
            Any,
            Option(
                "",
                "anything with MXNet's `attr_dict()` and `list_arguments()`: multipliers are taken from its attributes",
            ),
        ] = None,
        begin_num_update: Annotated[int, Exact("[0, inf)", "the update count every parameter starts from")] = 0,
        multi_precision: Annotated[
            bool, Option("", "keep a float32 master copy of float16 and bfloat16 weights, and update that")
        ] = False,
        param_dict: Annotated[
            Mapping[Index, Any] | None,
            Option(
                "",
                "by index, parameters whose `lr_mult` and `wd_mult` attributes count before all other multipliers",
            ),
        ] = None,
        *,
        state_dtype: Stored = None,
        seed: Seed = None,
    ) -> None:
        if lr_scheduler is None and learning_rate is None:
            learning_rate = 0.01
        if lr_scheduler is not None:
            check_schedule(lr_scheduler)
        if learning_rate is not None:
            warn_of_climbing(learning_rate)
        if param_idx2name is not None and not isinstance(param_idx2name, Mapping):
            raise ArgumentTypeError(f"param_idx2name must be a dict of index to name, got {param_idx2name!r}")
        for index, name in (param_idx2name or {}).items():
            if not isinstance(name, str):
                raise ArgumentTypeError(f"param_idx2name must give names, which are texts, got {name!r} for {index!r}")
        if param_dict is not None and not isinstance(param_dict, Mapping):
            raise ArgumentTypeError(f"param_dict must be a dict of index to parameter, got {param_dict!r}")
        if state_dtype is not None:
            self.state_dtype = state_dtype
        if lr_scheduler is not None and learning_rate is not None:
            self._overwrite(lr_scheduler, learning_rate)
        self.seed = seed
        self.parts: dict[Any, tuple[Index, int]] = {}  # by index of a part: its parameter, and its first element there
        self.rescale_grad = rescale_grad
        self.lr_scheduler = lr_scheduler
        self.lr: Any = learning_rate
        self.wd = wd
        self.clip_gradient = clip_gradient
        self.multi_precision = multi_precision
        self.begin_num_update = begin_num_update
        self.num_update: int = begin_num_update
        self.aggregate_num = 0  # the longest list that `update` takes; 0 if it takes single tensors only
        self.idx2name: dict[Any, str] = {plain(index): name for index, name in (param_idx2name or {}).items()}
        if sym is not None:
            self.sym_info: tuple[Any, ...] = attributes_of(sym)
        self.param_dict: Mapping[Index, Any] = param_dict or {}
        self.overridden = overridden(type(self), self.overridable)
        self._all_index_update_counts: dict[int, dict[Index, int]] = {0: {}}
        self._index_update_count = self._all_index_update_counts[0]
        self.set_lr_mult({})
        self.set_wd_mult({})

    # The registry.

    @staticmethod
    def register(klass: O) -> O:
        """Registers an optimizer class under its name in lower case; usable as a decorator.

        Warns if the name is taken. Raises ArgumentTypeError for anything but a subclass of
        Optimizer.
        """
        if not (isinstance(klass, type) and issubclass(klass, Optimizer)):
            raise ArgumentTypeError(f"@mxopt.register stands over a class derived from mxopt.Optimizer, got {klass!r}")
        name = klass.__name__.lower()
        other = Optimizer.opt_registry.get(name)
        if other is not None:
            warn(
                f"the new optimizer {klass.__module__}.{klass.__name__} is overriding"
                f" {other.__module__}.{other.__name__}"
            )
        Optimizer.opt_registry[name] = klass
        Optimizer.registry.add(name, klass)
        return klass

    @staticmethod
    def create_optimizer(name: str, **kwargs: Any) -> Optimizer:
        """A new optimizer of the class registered under `name` (in any case), made with `kwargs`.

        >>> Optimizer.create_optimizer('SGD', learning_rate=0.1).learning_rate
        0.1

        Raises ValueError for an unknown name, and whatever the class raises.
        """
        if not isinstance(name, str):
            called = f"; a class is called by itself, {name.__name__}(...)" if isinstance(name, type) else ""
            raise UnknownNameError(f"an optimizer is created by its name, a text, got {name!r}{called}")
        klass = Optimizer.opt_registry.get(name.lower())
        if klass is None:
            found = nearest(name, Optimizer.opt_registry)
            own = "; a class of one's own gets a name by @mxopt.register, as QHM does in the guide (docs/guide.md)"
            raise UnknownNameError(f"there is no optimizer {name!r}: {found}{own * (not found.endswith('?'))}")
        return klass(**kwargs)

    # What subclasses define.

    def create_state(self, index: Index, weight: Array) -> State:
        """The state of a new weight; called once for each weight. None in the base class."""

    def update(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        """Updates `weight` and `state` in place by `grad`. Subclasses define this."""
        raise NotDefinedError(f"{type(self).__name__} must define update")

    def create_state_multi_precision(self, index: Index, weight: Array) -> State:
        """The state of a new weight; for a 16-bit weight with `multi_precision` the pair (master
        copy, state of the master)."""
        weight = arrays.as_array(weight, self.called(index))
        if self.uses_master(weight):
            master = weight.astype(np.float32)
            return self.join(self.create_state(index, master), master)
        if weight.dtype.itemsize == 2 and not (weight.dtype == arrays.BFLOAT16 and self.state_dtype == "bfloat16"):
            instead = ", to nearest: state_dtype='bfloat16' rounds stochastically" * (weight.dtype == arrays.BFLOAT16)
            warn(
                f"{weight.dtype} weights without multi_precision=True lose accuracy: states and weights"
                f" are rounded to 16 bits at every update{instead}"
            )
        return self.create_state(index, weight)

    def __call__(self, *arguments: Any, **keywords: Any) -> None:
        """Raises ArgumentTypeError: an updater is called, not an optimizer."""
        raise ArgumentTypeError(
            f"{type(self).__name__} isn't called: mxopt.get_updater(optimizer) gives what is, with (index, grad,"
            " weight), and keeps the states; or call optimizer.update(index, weight, grad, state)"
        )

    def update_multi_precision(self, index: Any, weight: Array, grad: Array, state: State) -> None:
        """Like `update`, with the state of `create_state_multi_precision`."""
        if isinstance(index, LISTS):
            if not self.multi_precision:
                self.update(index, weight, grad, state)
                return
            self.in_turn(self.update_multi_precision, list(zip(index, weight, grad, state, strict=True)))
            return
        weight = arrays.as_array(weight, self.called(index))
        if self.uses_master(weight):
            inner, master = self.split(state)
            grad = arrays.as_array(grad, self.called(index)).astype(np.float32)
            self.update(index, master, grad, inner)
            weight[...] = master.astype(weight.dtype)
        else:
            self.update(index, weight, grad, state)

    def uses_master(self, weight: Array) -> bool:
        """Whether there is a float32 master copy of `weight`."""
        return self.multi_precision and weight.dtype.itemsize == 2

    def join(self, inner: State, master: Array) -> State:
        """A state with a master copy, in MXNet's order, which differs between optimizers."""
        return (master, inner)

    def split(self, state: State) -> tuple[State, Array]:
        """Undoes `join`: returns the inner state and the master copy."""
        master, inner = state
        return inner, master

    def called(self, index: Index) -> str:
        """What errors call a parameter: its index, and its name if that is known."""
        name = getattr(self.param_dict.get(index), "name", None) or self.idx2name.get(index)
        return f"parameter {index!r}" + (f" ({name})" if name and name != index else "")

    def check_attributes(self) -> None:
        """Raises ArgumentError if an attribute has been set to what isn't allowed."""
        whose, schedule = type(self).__name__, self.lr_scheduler
        if schedule is not None:
            check_schedule(schedule, f"{whose}: ")
        check_kept(self)

    def explain(self, error: BaseException) -> None:
        """Raises ArgumentError if an attribute that was set to what isn't allowed may have caused
        `error`, which an update has raised."""
        mine = isinstance(error, ArithmeticError | TypeError | ValueError | AttributeError)
        if mine and (type(error) is ArgumentError or not isinstance(error, MXOptError)):
            try:
                self.check_attributes()
            except ArgumentError as found:
                raise found from error

    # What stores ask.

    @property
    def elementwise(self) -> bool:
        """Whether each element is updated independently of the others, so that servers may cut
        arrays; False if unknown."""
        return False

    @property
    def rowwise(self) -> bool:
        """Whether each row is updated independently of the others, so that several servers may
        share the rows of a table."""
        return self.elementwise

    @property
    def rescales_first(self) -> bool:
        """Whether an update depends on its gradient only through `rescale_grad * grad`."""
        return True

    per_worker_state: ClassVar[int | None] = None
    """The position in a state of what each worker of an asynchronous job has its own copy of, such
    as the weight at its last update."""

    schedules_before_counting: ClassVar[bool] = False
    """Whether a schedule gives the rate of an update by the count before it."""

    @property
    def own_num_update(self) -> bool:
        """Whether `num_update` is counted otherwise than as the largest count of any parameter."""
        return "_update_count" in self.overridden

    def state_kind(self) -> Plain:
        """Plain data that describes its states. Saved states are loaded only if it is equal."""
        family = {"optimizer": type(self).__name__, "family": "mxopt.optimizer"}
        return {**family, "multi_precision": self.multi_precision}

    def is_like(self, other: Optimizer) -> bool:
        """Whether `other` is of the same class, so that its options can be taken over."""
        return same_class(type(self), type(other))

    def take_over(self, made: Optimizer) -> None:
        """Takes the options, the schedule and the counts of `made`, for which `is_like` holds.

        The optimizer stays the same object, and so does its schedule if both are of one class. What
        isn't saved stays (`param_dict`, `sym`, `aggregate_num`), and so does a `state_dtype`, to
        which loaded states are converted.
        """
        schedule = self.lr_scheduler
        kept = {name: getattr(self, name) for name in ("_param_dict", "sym_info", "aggregate_num", "parts")}
        if self.state_dtype is not None:
            kept["_state_dtype"] = self.state_dtype
        if schedule is not None and same_class(type(schedule), type(made.lr_scheduler)):
            vars(schedule).update(vars(made.lr_scheduler))
            kept["lr_scheduler"] = schedule
        vars(self).update({**vars(made), **kept})

    # Learning rate and multipliers.

    @property
    def learning_rate(self) -> float:
        """The current learning rate, before multipliers."""
        rate: float = self.lr if self.lr_scheduler is None else self.lr_scheduler(self.num_update)
        return rate

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate. Raises UserWarning if a scheduler sets it, as in MXNet."""
        if self.lr_scheduler is not None:
            raise WarnedUsageError("set_learning_rate: the rate comes from lr_scheduler; set its base_lr instead")
        number("learning_rate", lr)
        warn_of_climbing(lr)
        self.lr = plain(lr)

    def _overwrite(self, schedule: object, rate: float) -> None:
        """Sets a schedule's `base_lr`, with a warning. A function has none, so any rate but the
        default is refused beside it."""
        if not hasattr(schedule, "base_lr"):
            default = parameters_of(type(self)).get("learning_rate")
            if default is None or rate != default.default:
                raise ArgumentError(
                    f"{type(self).__name__}: learning_rate={rate!r} would overwrite the base_lr of lr_scheduler, and"
                    f" {schedule!r} has none: leave learning_rate out"
                )
        elif schedule.base_lr != rate:
            warn("the learning_rate of the optimizer overwrites base_lr of its lr_scheduler")
            schedule.base_lr = rate

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Removed, as in MXNet: raises DeprecationWarning. Use `set_lr_mult`."""
        raise RemovedError("set_lr_scale is gone: use set_lr_mult")

    def __repr__(self) -> str:
        schedule = self.lr_scheduler
        by = f" by {getattr(schedule, '__name__', type(schedule).__name__)}" if schedule is not None else ""
        return f"<{type(self).__name__} learning_rate={self.learning_rate:g}{by} num_update={self.num_update}>"


def register(klass: O) -> O:
    """Registers an optimizer class under its name in lower case; usable as a decorator. See
    `Optimizer.register`."""
    return Optimizer.register(klass)
