"""PyTorch's optimizers, which are those of `experimental.optim`, as rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.experimental import optim
from mxopt.experimental.optim.groups import check_keys
from mxopt.parameter import Parameter
from mxopt.typing import Array, Plain

# PyTorch's names of the states.
ADAM = {"mean": "exp_avg", "var": "exp_avg_sq", "largest": "max_exp_avg_sq"}
STATES = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam"), ADAM),
    "SGD": {"velocity": "momentum_buffer"},
    "Adamax": ADAM | {"largest": "exp_inf"},
    "Adagrad": {"history": "sum"},
    "Adadelta": {"mean_square": "square_avg", "mean_square_step": "acc_delta"},
    "RMSprop": {"mean_square": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
    "Rprop": {"previous": "prev"},
    "ASGD": {"average": "ax"},
}
UNCOUNTED = ("SGD",)  # PyTorch keeps no count of its steps


def number_of(value: Array) -> Any:
    """An option as a number, where a schedule keeps it as a tensor."""
    if isinstance(value, tuple | list):
        return type(value)(map(number_of, value))
    return value.item() if hasattr(value, "item") else value


class OfExperimental:
    """An optimizer of `experimental.optim`."""

    def __init__(self, kind: str, options: Plain) -> None:
        self._kind = kind
        self._names = STATES[kind]
        self._options = {"lr": 1e-3, **options} if kind == "SGD" else options  # PyTorch has a default there
        made = self._made([{"params": []}])
        self._seeds = {"seed": made.seed or 0} if made.state_dtype == "bfloat16" else {}
        self.defaults: Plain = made.defaults | self._seeds
        self._model: optim.Optimizer

    def _made(self, groups: list[Plain]) -> optim.Optimizer:
        made: optim.Optimizer = getattr(optim, self._kind)(groups, **self._options)
        return made

    def group(self, given: Plain, whose: str) -> Plain:
        check_keys(given, {*self.defaults, "param_names"}, optim.Optimizer.names, whose)
        return given

    def add(self, group: Plain, weights: Sequence[np.ndarray], names: Sequence[str]) -> None:
        known = self.defaults.keys() - self._seeds.keys()
        own = {key: number_of(value) for key, value in group.items() if key in known}
        params = [Parameter(weight, name) for weight, name in zip(weights, names, strict=True)]
        if hasattr(self, "_model"):
            self._model.add_param_group({**own, "params": params})
        else:
            self._model = self._made([{**own, "params": params}])

    def update(self, groups: Sequence[Plain], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None:
        self._follow(groups)
        self._model(grads)

    def repeat(self, groups: Sequence[Plain], places: list[int]) -> bool:
        self._follow(groups)
        return self._model.repeat(places)

    def _follow(self, groups: Sequence[Plain]) -> None:
        """Takes over what has been changed in the groups."""
        for mine, theirs in zip(self._model.param_groups, groups, strict=True):
            now = {key: number_of(theirs[key]) for key in self.defaults}
            self._model.seed = now.pop("seed", self._model.seed)
            changed = {key: value for key, value in now.items() if mine[key] != value}
            if changed:
                mine.update(changed)

    def state(self, number: int) -> Plain:
        slot = self._model.slots[number]
        if not slot.step:
            return {}
        uncounted = self._kind in UNCOUNTED and not self._seeds  # which rounding follows
        counted: Plain = {} if uncounted else {"step": slot.step}
        if self._model.carried:
            counted[self._model.carried] = slot.carry
        if self._kind == "ASGD":
            counted["mu"] = 1 / max(1.0, slot.step - self._model.param_groups[slot.group]["t0"])
        return counted | {self._names.get(name, name): array for name, array in slot.arrays.items()}

    def restore(self, groups: Sequence[Plain], states: Sequence[Plain]) -> None:
        self._follow(groups)
        ours = {theirs: name for name, theirs in self._names.items()}
        document = self._model.state_dict()
        document["state"] = {}
        for slot, state in zip(self._model.slots, states, strict=True):
            kept = {ours.get(name, name): value for name, value in state.items() if value is not None}
            kept.pop("mu", None)
            if not kept:
                continue
            kept["step"] = int(kept.get("step", 1))
            if self._model.carried:
                kept[self._model.carried] = float(kept.get(self._model.carried, self._model.first_carry))
            if self._model.uses_master(slot.weight):
                kept = with_master(kept, slot.weight)
            document["state"][slot.name] = kept
        self._model.load_state_dict(document)


def with_master(state: Plain, weight: np.ndarray) -> Plain:
    """A state as one of a weight with a master copy is: PyTorch's own has none, and its arrays are
    of the weight's 16 bits."""
    wide = {
        name: x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.itemsize == 2 else x
        for name, x in state.items()
    }
    return wide if "master" in wide else {**wide, "master": weight.astype(np.float32)}
