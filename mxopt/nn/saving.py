"""Saving and loading of `mxopt.nn`'s optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mxopt.engine import arrays
from mxopt.errors import counted
from mxopt.nn.parameters import ParameterGroup, ParameterTuple
from mxopt.optimizer.grouped import GroupedOptimizer
from mxopt.optimizer.saving import Kept, differences
from mxopt.options import number
from mxopt.parameter import Parameter
from mxopt.rules.rule import Rule
from mxopt.typing import Document, Plain


class SavedOptimizer(GroupedOptimizer):
    """States are the attributes that are a `ParameterTuple`, as `self.parameters.clone` makes them.
    The attribute that `carried` names, if any, has a number for each parameter."""

    parameters: ParameterTuple
    groups: list[ParameterGroup]

    def fixed_rates(self) -> list[Parameter]:
        """The learning rates that are numbers, which `state_dict` saves."""
        rates = {id(group.rate): group.rate for group in self.groups}
        return [rate for rate in rates.values() if isinstance(rate, Parameter)]

    def keys(self) -> list[str]:
        """The parameters' names, or their positions if some have none or share one."""
        names = [p.name or "" for p in self.parameters]
        return names if all(names) and len(set(names)) == len(names) else list(map(str, range(len(names))))

    def _states(self) -> dict[str, ParameterTuple]:
        found = {name: value for name, value in vars(self).items() if isinstance(value, ParameterTuple)}
        return {name: value for name, value in found.items() if name != "parameters"}

    def kept(self) -> Kept:
        found: dict[str, list[Any]] = {what: [p.asnumpy().copy() for p in s] for what, s in self._states().items()}
        if self.carried:
            found[self.carried] = getattr(self, self.carried)
        return {key: {what: values[k] for what, values in found.items()} for k, key in enumerate(self.keys())}

    def _laid_out(self, kept: Kept) -> Plain:
        rates = [float(rate.value) for rate in self.fixed_rates()]
        states = {what: {key: each[what] for key, each in kept.items()} for what in self._states()}
        carried = {self.carried: [each[self.carried] for each in kept.values()]} if self.carried else {}
        steps = {"global_step": self.global_step, "learning_rates": rates}
        return {"rule": self._rule_name(), **steps, "states": states, **carried}

    def _rule_name(self) -> str | None:
        """The name of the rule that uses the states; None for an optimizer without a rule."""
        rule = getattr(self, "rule", None)
        return rule.name if isinstance(rule, Rule) else None

    def _fit(self, document: Document) -> tuple[list[str], Callable[[], None]]:
        own, fixed, wrong = self._states(), self.fixed_rates(), list[str]()
        rule, step = document["rule"], document["global_step"]
        rates = [number("a learning rate", rate) for rate in document["learning_rates"]]
        kept = [{what: state.get(key) for what, state in document["states"].items()} for key in self.keys()]
        for each, carry in zip(kept, document[self.carried] if self.carried else (), strict=False):
            each[self.carried] = carry
        if rule != self._rule_name():
            wrong.append(f"they are for the rule {rule!r}, not for {self._rule_name()!r}")
        for k, (slot, each) in enumerate(zip(self._slots, kept, strict=True)):
            wanted: Plain = {what: (state[k].shape, state[k].dtype) for what, state in own.items()}
            wrong += differences(slot.place, wanted | ({self.carried: float} if self.carried else {}), each)
        wrong += [f"a learning rate is {rate}" for rate in rates if rate < 0]
        if not isinstance(step, int) or step < 0:
            wrong.append(f"global_step is {step!r}")
        if len(rates) != len(fixed):
            wrong.append(f"there are {counted(len(fixed), 'fixed learning rate')} here, not {len(rates)}")

        def take() -> None:
            for k, (slot, each) in enumerate(zip(self._slots, kept, strict=True)):
                carry = each.pop(self.carried or "", self.first_carry)
                slot.carry = carry if step else self.first_carry
                for what, value in each.items():
                    own[what][k].value[...] = arrays.to_device_of(value, own[what][k].value)
            for rate, value in zip(fixed, rates, strict=True):
                rate.value[...] = value
            self.global_step = step

        return wrong, take
