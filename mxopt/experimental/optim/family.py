"""Adapts the experimental optimizers for stores and Trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mxopt.arguments import arguments_of
from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.optimizer.family import FAMILIES, Family
from mxopt.overrides import overridden
from mxopt.registry import Registry
from mxopt.rules.rule import Rule
from mxopt.typing import Array


class Experimental(Family):
    """See `Family`."""

    model: Optimizer
    name: ClassVar[str] = "experimental.optim"
    base: ClassVar[type] = Optimizer
    registry: ClassVar[Registry] = Optimizer.registry

    @classmethod
    def make(
        cls, klass: type[Optimizer], arguments: Options, groups: Sequence[Options], multi_precision: bool
    ) -> Optimizer:
        known = {name: value for name, value in arguments.items() if name in arguments_of(klass)}
        made: Optimizer = klass([{**group, "params": []} for group in groups], **known)
        made.multi_precision = multi_precision
        return made

    @staticmethod
    def check(model: Optimizer) -> None:
        klass = type(model)
        for method in ("construct", "__call__"):
            if getattr(klass, method) is not getattr(Optimizer, method):
                raise ArgumentError(
                    f"{klass.__name__} defines {method}: for a store or a Trainer it must define rule and scalars"
                )

    def arguments(self) -> Options:
        known = {*self.model.defaults, "params", "multi_precision", "state_dtype", "seed"}
        unknown = [a for a in (*arguments_of(type(self.model)), *self.model.unnamed_arguments) if a not in known]
        if unknown:
            raise ArgumentError(
                f"{type(self.model).__name__}: the argument {unknown[0]!r} is none of its options, so servers can't"
                " get it"
            )
        return self.model.defaults

    def groups(self) -> list[Options]:
        return [{k: v for k, v in group.items() if k != "params"} for group in self.model.param_groups]

    def set_groups(self, groups: Sequence[Options]) -> None:
        for mine, new in zip(self.model.param_groups, groups, strict=True):
            mine.update(new)

    def set_rate(self, lr: float) -> None:
        self.set_groups([{"lr": lr} for _ in self.model.param_groups])

    def elementwise(self) -> bool:
        return super().elementwise() and not overridden(type(self.model), ["new_state"])

    def rules(self) -> list[Rule]:
        return [self.model.rule(group) for group in self.model.param_groups]

    def new_states(self, group: int, weight: Array, lr_mult: float) -> list[Array]:
        options = self.model.param_groups[group]
        return [self.model.new_state(name, weight, options) for name in self.model.rule(options).states]

    def document(self, groups: Sequence[Options], states: Mapping[int, tuple[int, Options]]) -> Options:
        names = self.model.keys()
        kept = {names[k]: {"step": count, **arrays} for k, (count, arrays) in states.items()}
        return {**self.model.document(kept), "param_groups": list(groups)}


FAMILIES[Experimental.name] = Experimental
