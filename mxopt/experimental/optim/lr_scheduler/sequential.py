"""Schedules one after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar

from mxopt.errors import ArgumentError, ArgumentTypeError, StatesError, counted
from mxopt.experimental.optim.lr_scheduler.base import LRScheduler, ParameterGroup, groups_of
from mxopt.experimental.optim.lr_scheduler.factors import MILESTONE
from mxopt.experimental.optim.lr_scheduler.options import Scheduled
from mxopt.experimental.optim.lr_scheduler.plateau import ReduceLROnPlateau
from mxopt.options import Exact, Option
from mxopt.typing import Plain


class SequentialLR(LRScheduler):
    """Several schedules, one after the other. Each begins with its step 0 at its milestone.

    Raises
    ------
    ValueError
        There are no schedules, one is of another optimizer, or the number of milestones is wrong.
    """

    groups: list[ParameterGroup]
    milestones: list[int]
    base_lrs: list[float]
    hidden: ClassVar[tuple[str, ...]] = (*LRScheduler.hidden, "schedulers")

    def __init__(
        self,
        optimizer: Scheduled,
        schedulers: Annotated[Sequence[LRScheduler], Option("", "all of the same optimizer; sequences too")],
        milestones: Annotated[Sequence[int], Option("", "ascending; one fewer than schedules")],
        last_epoch: Annotated[
            int,
            Exact(
                "[-1, inf)",
                "the number of the step to go on from: the sequence is run again from its beginning, and needs new"
                " schedules, each made with its own `last_epoch` of -1",
            ),
        ] = -1,
    ) -> None:
        for what, given in {"schedulers": schedulers, "milestones": milestones}.items():
            if not isinstance(given, Iterable):
                raise ArgumentTypeError(f"SequentialLR: {what} must be a list, got {given!r:.80}")
        schedulers = list(schedulers)
        milestones = [int(MILESTONE.check("a milestone", m)) for m in milestones]
        if not schedulers:
            raise ArgumentError("schedulers is empty")
        for k, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentTypeError(f"schedulers[{k}] can't be part of a sequence: {type(scheduler).__name__}")
            if scheduler.optimizer is not optimizer:
                raise ArgumentError(f"schedulers[{k}] belongs to another optimizer")
        if len(milestones) != len(schedulers) - 1:
            needed = counted(len(schedulers) - 1, "milestone")
            raise ArgumentError(f"{counted(len(schedulers), 'schedule')} and {needed} go together, got {milestones}")
        if any(b <= a for a, b in pairwise(milestones)):
            raise ArgumentError(f"milestones must be ascending, got {milestones}")
        self.optimizer = optimizer
        self.groups = groups_of(optimizer)
        self.schedulers = schedulers
        self.milestones = milestones
        self.base_lrs = [float(group["initial_lr"]) for group in self.groups]
        self.last_epoch: float = 0
        self._last_lr = self._rates()
        with self.as_one():
            for group, rate in zip(self.groups, self.base_lrs, strict=True):
                group["lr"] = rate
            for scheduler in schedulers:
                scheduler.rewind()
            schedulers[0].step()
            self._last_lr = self._rates()
            for _ in range(last_epoch + 1):
                self.step()

    def members(self) -> list[LRScheduler]:
        return [*(member for scheduler in self.schedulers for member in scheduler.members()), self]

    def rewind(self) -> None:
        super().rewind()
        self.schedulers[0].rewind()

    def begin(self) -> None:
        with self.as_one():
            self.last_epoch = 0
            self.schedulers[0].begin()
            self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Sets the rates of the next step. Raises what its schedules raise, and then changes
        nothing."""
        with self.as_one():
            self.last_epoch += 1
            which = bisect_right(self.milestones, self.last_epoch)
            scheduler = self.schedulers[which]
            if which and self.milestones[which - 1] == self.last_epoch:
                scheduler.begin()
            else:
                scheduler.step()
            self._last_lr = self._rates()

    def state_dict(self) -> Plain:
        """Its own state and those of its schedules, as plain data."""
        return {**super().state_dict(), "schedulers": [s.state_dict() for s in self.schedulers]}

    def _compare(self, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        super()._compare(here, there)
        parts, milestones = there["schedulers"], there["milestones"]
        if len(parts) != len(self.schedulers) or len(milestones) != len(self.milestones):
            raise StatesError(
                f"SequentialLR: the state is that of {counted(len(parts), 'schedule')} and"
                f" {counted(len(milestones), 'milestone')}, this has {counted(len(self.schedulers), 'schedule')}"
            )
        for scheduler, part in zip(self.schedulers, parts, strict=True):
            scheduler._compare(scheduler.state_dict(), part)

    def _restore(self, state: Mapping[str, Any]) -> None:
        for scheduler, part in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler._restore(part)
        super()._restore({key: value for key, value in state.items() if key != "schedulers"})
