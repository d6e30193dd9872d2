"""Adapts the optimizers of `mxopt.nn` for stores and Trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mxopt.arguments import parameters_of
from mxopt.errors import ArgumentError
from mxopt.nn.optimizer import Optimizer
from mxopt.nn.parameters import Listed, Rate, as_rate, decay_at, rate_at
from mxopt.nn.ruled import RuleOptimizer
from mxopt.optimizer.family import FAMILIES, Family, Options
from mxopt.options import number, within
from mxopt.overrides import overridden
from mxopt.parameter import Parameter
from mxopt.registry import Registry
from mxopt.rules.rule import Rule
from mxopt.typing import Array


class NN(Family):
    """See `Family`. A group's options are its rate, its weight decay, and whether gradients are
    centralized."""

    model: RuleOptimizer
    name: ClassVar[str] = "nn"
    base: ClassVar[type] = Optimizer
    registry: ClassVar[Registry] = Optimizer.registry

    @classmethod
    def make(
        cls, klass: type[RuleOptimizer], arguments: Options, groups: Sequence[Options], multi_precision: bool
    ) -> RuleOptimizer:
        params = [{"params": [np.zeros(1, np.float32)]} for _ in groups]
        made: RuleOptimizer = klass(**{**arguments, _params(klass): params})
        for group, options in zip(made.groups, groups, strict=True):
            group.rate, group.decay = Parameter(np.array(options["lr"], np.float64)), options["weight_decay"]
            group.centralized = options["grad_centralization"]
        return made

    @staticmethod
    def check(model: Optimizer) -> None:
        own = sorted(overridden(type(model), ("construct", "__call__", *Optimizer.overridable)))
        if own or not isinstance(model, RuleOptimizer):
            raise ArgumentError(
                f"{type(model).__name__} defines {own[0] if own else 'construct'}: for a store or a Trainer it must be"
                " a RuleOptimizer that leaves that as it is"
            )

    def arguments(self) -> Options:
        given = {name: value for name, value in self.model.given.items() if name != _params(type(self.model))}
        if given.get("learning_rate") is not None:  # required, though only the groups' rates count
            given["learning_rate"] = rate_at(as_rate(given["learning_rate"], self.name), 0)
        if callable(given.get("weight_decay")):
            given["weight_decay"] = 0.0
        return given

    def groups(self) -> list[Options]:
        step = self.model.global_step
        return [
            {
                "lr": _last_rate(group.rate, step),
                "weight_decay": decay_at(group.decay, step),
                "grad_centralization": group.centralized,
            }
            for group in self.model.groups
        ]

    def set_groups(self, groups: Sequence[Options]) -> None:
        """Sets numbers; schedules stay."""
        for group, new in zip(self.model.groups, groups, strict=True):
            if isinstance(group.rate, Parameter):
                group.rate.value[...] = new["lr"]
            if not callable(group.decay):
                group.decay = new["weight_decay"]

    def set_rate(self, lr: float) -> None:
        owner = type(self.model).__name__
        within(f"{owner}: learning_rate", number(f"{owner}: learning_rate", lr), "[0, inf)")
        rates = [group.rate for group in self.model.groups]
        if len(self.model.fixed_rates()) < len({id(rate) for rate in rates}):
            raise ArgumentError(
                f"{type(self.model).__name__}: a schedule gives the learning rate, which can't be set beside it"
            )
        for rate in self.model.fixed_rates():
            rate.value[...] = lr

    def reach(self, step: int) -> None:
        self.model.global_step = step

    def check_step(self, step: int) -> None:
        for group in self.model.groups:
            rate_at(group.rate, step)

    def elementwise(self) -> bool:
        return self.model.elementwise and super().elementwise()

    def rules(self) -> list[Rule]:
        return [self.model.rule]

    def state_names(self, group: int) -> tuple[str, ...]:
        return self.model.state_names

    def new_states(self, group: int, weight: Array, lr_mult: float) -> tuple[Array, ...]:
        return self.model.new_states(weight, rate_at(self.model.groups[group].rate, self.model.global_step) * lr_mult)

    def document(self, groups: Sequence[Options], states: Mapping[int, tuple[int, Options]]) -> Options:
        kept, names = self.model.kept(), self.model.keys()
        for k, (_, theirs) in states.items():
            kept[names[k]].update(theirs)
        rates = {group.rate: new["lr"] for group, new in zip(self.model.groups, groups, strict=True)}
        return {
            **self.model.document(kept),
            "learning_rates": [rates[rate] for rate in self.model.fixed_rates()],
            "global_step": max((count for count, _ in states.values()), default=0),
        }


def _params(klass: type) -> str:
    """The name of the argument for a class's parameters."""
    return "params" if "params" in parameters_of(klass) else "parameters"


def _last_rate(rate: Rate, step: int) -> float:
    """The rate of a step; after the end of a list of rates its last one."""
    return rate_at(rate, min(step, len(rate.values) - 1) if isinstance(rate, Listed) else step)


FAMILIES[NN.name] = NN
