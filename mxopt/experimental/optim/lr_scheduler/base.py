"""The base of all schedules, and the parameter groups whose learning rates they set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Annotated, Any, ClassVar

from mxopt.arguments import NamedArguments, attribute_of, declared_of
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, ArgumentKeyError, ArgumentTypeError, NotDefinedError, StatesError, counted
from mxopt.options import Exact, Option, number, within
from mxopt.typing import Document, HasGroups, HasRate, Plain

ParameterGroup = MutableMapping[str, Any]
RATES = ("lr", "initial_lr")  # of a group, what schedules set


class OneRate(MutableMapping[str, Any]):
    """An optimizer with a single learning rate, as a parameter group. Other items are kept in the
    optimizer, where all its schedules see them."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._more: Plain = vars(optimizer).setdefault("_one_rate", {})

    def __getitem__(self, key: str) -> Any:
        return self._optimizer.learning_rate if key == "lr" else self._more[key]

    def __setitem__(self, key: str, value: object) -> None:
        if key == "lr":
            self._optimizer.set_learning_rate(value)
        else:
            self._more[key] = value

    def __delitem__(self, key: str) -> None:
        del self._more[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["lr", *self._more])

    def __len__(self) -> int:
        return 1 + len(self._more)


def groups_of(optimizer: Any) -> list[ParameterGroup]:
    """The groups whose rates a schedule sets: the optimizer's `param_groups`, or, for an optimizer
    with `learning_rate` and `set_learning_rate`, a single group that all its schedules share.
    """
    groups = getattr(optimizer, "param_groups", None)
    if groups is not None:
        return groups  # type: ignore[no-any-return]
    if not hasattr(optimizer, "set_learning_rate"):
        raise ArgumentTypeError(
            f"optimizer must have param_groups or set_learning_rate, got {type(optimizer).__name__}"
        )
    if getattr(optimizer, "lr_scheduler", None) is not None:
        raise ArgumentError("the optimizer has an lr_scheduler of its own already")
    return [OneRate(optimizer)]


class Unchanged:
    """Inside a `with` block, changes of schedules and of the groups' rates are made all or, if it
    raises, not at all. New groups join the schedules first.

    It is no generator: one that a signal handler's exception passes by is closed later on, and
    would put back then what has changed since.
    """

    def __init__(self, groups: Sequence[ParameterGroup], schedules: Sequence[LRScheduler] = ()) -> None:
        self._rates = [(group, {k: group[k] for k in RATES if k in group}) for group in groups]
        self._schedules = [(schedule, dict(vars(schedule))) for schedule in schedules]

    def __enter__(self) -> None:
        try:
            for schedule, _ in self._schedules:
                schedule.admit()
        except BaseException:
            uninterrupted(self._put_back)
            raise

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            uninterrupted(self._put_back)

    def _put_back(self) -> None:
        for group, rates in self._rates:
            for key in RATES:
                if key in group and key not in rates:
                    del group[key]
            group.update(rates)
        for schedule, before in self._schedules:
            vars(schedule).clear()
            vars(schedule).update(before)


class LRScheduler(NamedArguments):
    """The base of all schedules. Subclasses define `get_lr`.

    Attributes
    ----------
    last_epoch : int
        The number of steps taken.
    base_lrs : list of float
        The rate that each group started from.

    Raises
    ------
    TypeError
        `optimizer` isn't one. A `last_epoch` of a wrong type is a ValueError too.
    KeyError
        A schedule that continues finds no "initial_lr" in a group.
    """

    hidden: ClassVar[tuple[str, ...]] = ("optimizer", "groups")  # attributes that aren't saved
    by_group: ClassVar[tuple[str, ...]] = ()  # attributes that are lists with an item for each group

    def __init__(
        self,
        optimizer: Annotated[
            HasGroups | HasRate,
            Option(
                "",
                "one of `mxopt.experimental.optim`, or one made by `mxopt.create`, or anything else with"
                " `learning_rate` and `set_learning_rate`. The schedule sets its rates, at once and then at each"
                " `step`",
            ),
        ],
        last_epoch: Annotated[
            int,
            Exact(
                "[-1, inf)",
                'the number of the step to go on from; -1 to begin. To go on, each group must have its "initial_lr"',
            ),
        ] = -1,
    ) -> None:
        self.optimizer = optimizer
        self.groups: list[ParameterGroup] = groups_of(optimizer)
        for k, group in enumerate(self.groups):
            if last_epoch != -1 and "initial_lr" not in group:
                raise ArgumentKeyError(f"group {k} has no 'initial_lr', which last_epoch={last_epoch} needs")
        with Unchanged(self.groups):
            self.base_lrs: list[float] = [self._initial(group) for group in self.groups]
            self.last_epoch: float = last_epoch
            self._last_lr = self._rates()
            self.step()

    def _initial(self, group: ParameterGroup) -> float:
        """The initial rate of a group, which is its present one if none has been noted; notes
        it."""
        group.setdefault("initial_lr", group["lr"])
        return float(group["initial_lr"])

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.groups]

    def get_lr(self) -> list[float]:
        """The rate of each group at step `last_epoch`; the groups still have the rates of the step
        before. Subclasses define this."""
        raise NotDefinedError(f"{type(self).__name__} must define get_lr")

    def closed_form(self, epoch: float) -> list[float] | None:
        """The rate of each group at step `epoch`, whatever came before; None if there is no formula
        for it."""
        return None

    def step(self, epoch: float | None = None) -> None:
        """Sets the rates of the next step, or those of step `epoch`.

        A group that was added to the optimizer meanwhile joins, with its present rate as the
        initial one. Raises ArgumentError if the schedule has different numbers for its groups.
        Whatever is raised, nothing has been changed.
        """
        with self.as_one():
            self.last_epoch = self.last_epoch + 1 if epoch is None else number("epoch", epoch)
            try:
                rates = None if epoch is None else self.closed_form(self.last_epoch)
                self._set(self.get_lr() if rates is None else rates)
            except OverflowError as error:
                raise ArgumentError(
                    f"{type(self).__name__}: the rates of step {self.last_epoch:g} are too large for a double"
                ) from error

    def rewind(self) -> None:
        """Takes back the constructor's step, for a sequence, which decides when its schedules
        step."""
        self.last_epoch -= 1

    def begin(self) -> None:
        """Sets the rates of step 0, for a sequence at a milestone."""
        self.step(0)

    def members(self) -> list[LRScheduler]:
        """The schedule itself, and those that are part of it."""
        return [self]

    def as_one(self) -> Unchanged:
        """Inside a `with` block, changes of the schedule and of the groups' rates are made all or,
        if it raises, not at all."""
        return Unchanged(self.groups, self.members())

    def admit(self) -> None:
        """Adds new groups to the schedule."""
        known, new = len(self.base_lrs), list(self.groups[len(self.base_lrs) :])
        if not new:
            return
        for name in self.by_group:
            values = getattr(self, name)
            if any(value != values[0] for value in values):
                raise ArgumentError(
                    f"{type(self).__name__} has {name} for each of {counted(known, 'group')}, and the optimizer has"
                    f" {len(self.groups)} by now: make a new schedule"
                )
            setattr(self, name, [*values, *values[:1] * len(new)])
        self.base_lrs = [*self.base_lrs, *map(self._initial, new)]

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._rates()

    def get_last_lr(self) -> list[float]:
        """The rates that were last set, one for each group."""
        return list(self._last_lr)

    def state_dict(self) -> Plain:
        """The schedule's attributes and the groups' rates, as plain data, without functions."""
        own = {k: _plain(v) for k, v in vars(self).items() if k not in self.hidden and not has_functions(v)}
        return {"scheduler": type(self).__name__, "rates": self._rates(), **own}

    def load_state_dict(self, state_dict: Document) -> None:
        """Loads what `state_dict` returned: the schedule continues from there to the last bit.

        Sets the groups' rates too. Raises StatesError, which says what differs, if it was made by
        another kind of schedule or for another number of groups. Then nothing has been changed.
        """
        self._compare(self.state_dict(), state_dict)
        with self.as_one():
            try:
                self._restore(state_dict)
            except (TypeError, ValueError) as error:
                raise StatesError(f"{type(self).__name__}: the state can't be taken: {error}") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Loads a state that `_compare` has accepted."""
        for key in state.keys() - {"scheduler", "rates"}:
            setattr(self, key, _plain(state[key]))
        for group, rate, base in zip(self.groups, state["rates"], self.base_lrs, strict=True):
            group.update({"lr": rate, "initial_lr": base} if "initial_lr" in group else {"lr": rate})

    def _compare(self, here: Document, there: Document) -> None:
        """Raises StatesError if `there` can't be a state of this schedule."""
        if not isinstance(there, Mapping) or "scheduler" not in there:
            raise StatesError(f"this is no state of a schedule: {there!r:.80}")
        if there["scheduler"] != here["scheduler"]:
            raise StatesError(f"the state is that of {there['scheduler']}, this is {here['scheduler']}")
        lacks, extra = here.keys() - there.keys(), there.keys() - here.keys()
        wrong = [f"{type(self).__name__}: the state lacks {', '.join(sorted(lacks))}"] * bool(lacks)
        wrong += [f"{type(self).__name__}: the state has {', '.join(sorted(extra))} too many"] * bool(extra)
        for key in here.keys() & there.keys():
            try:
                self._check(key, here[key], there[key])
            except (TypeError, ValueError) as error:
                wrong.append(f"{type(self).__name__}: {error}")
        if wrong:
            raise StatesError("; ".join(wrong))

    def _check(self, key: str, here: object, there: object) -> None:
        """Raises if `there` can't be a value of `key`, which now is `here`."""
        each = key in ("rates", "base_lrs", *self.by_group)
        if each and (not isinstance(there, list) or len(there) != len(self.groups)):
            raise ArgumentError(f"{key} is {there!r}, needs one for each of {counted(len(self.groups), 'group')}")
        if key == "last_epoch":
            within(key, number(key, there), "[-1, inf)")
            return
        option = False
        for name, known in declared_of(type(self)).items():
            if attribute_of(type(self), name) == key:
                known.check(key, there)
                option = True
        if not (_alike(here, there) if here is not None else there is None or not option):
            raise ArgumentTypeError(f"{key} is {there!r:.80}, needs something like {here!r:.80}")

    def __repr__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.get_last_lr())
        return f"<{type(self).__name__} step {self.last_epoch}, rates [{rates}]>"


def _plain(value: object) -> Any:
    """A copy of plain data."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _alike(here: object, there: object) -> bool:
    """Whether one value of a state can replace another: a number a number, and so on."""
    if isinstance(here, list | tuple):
        return isinstance(there, list | tuple) and all(_alike(here[0], each) for each in there if here)
    if isinstance(here, int | float):
        return isinstance(there, int | float) and there == there
    return isinstance(there, type(here))


def has_functions(value: Any) -> bool:
    return callable(value) or (isinstance(value, list) and any(map(callable, value)))
