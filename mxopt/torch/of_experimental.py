"""The backend of PyTorch's own optimizers, with the rules of `experimental.optim` and of
`additions.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mxopt.errors import ArgumentError, StatesError
from mxopt.experimental import optim
from mxopt.experimental.optim.groups import check_keys
from mxopt.optimizer.grouped import Slot
from mxopt.parameter import Parameter
from mxopt.torch import additions
from mxopt.typing import Array, Plain

# PyTorch's names of the states; None for a state that it lacks.
Names = dict[str, str | None]
ADAM: Names = {"mean": "exp_avg", "var": "exp_avg_sq", "largest": "max_exp_avg_sq"}
STATES: dict[str, Names] = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam"), ADAM),
    "SGD": {"velocity": "momentum_buffer"},
    "Adamax": ADAM | {"largest": "exp_inf"},
    "Adagrad": {"history": "sum"},
    "Adadelta": {"mean_square": "square_avg", "mean_square_step": "acc_delta"},
    "RMSprop": {"mean_square": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
    "Rprop": {"previous": "prev"},
    "ASGD": {"average": "ax"},
    "Adafactor": {"row": "row_var", "column": "col_var"},
    "SparseAdam": ADAM,
}
VECTOR: Names = {"row": "variance", "column": None}  # Adafactor's, for parameters of fewer than two axes
UNCOUNTED = ("SGD",)  # PyTorch doesn't count its steps
AT_ONCE = ("Adagrad",)  # PyTorch creates its states together with the optimizer
NUMBERS = {"step", "mu", "eta", "mu_product", "previous_lr"}
KEPT = NUMBERS.union(["master"], *(names.values() for names in (*STATES.values(), VECTOR)))

FLOATS = ("lambd", "t0")  # ASGD's, for which MindSpore asks for a float; PyTorch takes an int, too


def number_of(value: Array) -> Any:
    """An option as a number: a schedule may keep it as a tensor, which has one element, as for
    PyTorch. What has more stays as it is, for the option's check to refuse."""
    if isinstance(value, tuple | list):
        return type(value)(map(number_of, value))
    return value.item() if hasattr(value, "item") and math.prod(value.shape) == 1 else value


def with_floats(options: Plain) -> Plain:
    """Options with floats in the place of those ints that MindSpore refuses."""
    numbers = {key: number_of(options[key]) for key in FLOATS if key in options}
    return options | {key: float(x) if type(x) is int else x for key, x in numbers.items()}


class OfExperimental:
    """An optimizer of `experimental.optim`."""

    def __init__(self, kind: str, options: Plain) -> None:
        self._kind = kind
        self._names = STATES[kind]
        # PyTorch's SGD has a default rate.
        options = {"lr": 1e-3, **options} if kind == "SGD" else options
        self._options = with_floats({key: number_of(value) for key, value in options.items()})
        made = self._made([{"params": []}])
        self._seeds = {"seed": made.seed or 0} if made.state_dtype == "bfloat16" else {}
        self.defaults: Plain = made.defaults | self._seeds
        self._model: optim.Optimizer

    def _made(self, groups: list[Plain]) -> optim.Optimizer:
        kind = getattr(optim, self._kind, None) or getattr(additions, self._kind)
        made: optim.Optimizer = kind(groups, **self._options)
        return made

    def group(self, given: Plain, whose: str) -> Plain:
        check_keys(given, {*self.defaults, "param_names"}, optim.Optimizer.names, whose)
        if not self._seeds:
            return given
        seed = (self._model.seed or 0) if hasattr(self, "_model") else self.defaults["seed"]
        if given.get("seed", seed) != seed:
            raise ArgumentError(f"{whose}: all groups share one seed, {seed}, got {given['seed']!r} for this one")
        return given if seed == self.defaults["seed"] else {**given, "seed": seed}  # PyTorch fills in the default

    def add(self, group: Plain, weights: Sequence[np.ndarray], names: Sequence[str]) -> None:
        known = self.defaults.keys() - self._seeds.keys()
        own = with_floats({key: number_of(value) for key, value in group.items() if key in known})
        params = [Parameter(weight, name) for weight, name in zip(weights, names, strict=True)]
        if hasattr(self, "_model"):
            self._model.add_param_group({**own, "params": params})
        else:
            self._model = self._made([{**own, "params": params}])

    def update(self, groups: Sequence[Plain], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None:
        if groups:
            self._follow(groups)
            self._model(grads)

    def repeat(self, groups: Sequence[Plain], places: Sequence[int], first: Iterable[object]) -> bool:
        self._follow(groups)
        return self._model.repeat(places, first)

    def _follow(self, groups: Sequence[Plain]) -> None:
        """Takes over changed options of the groups. Raises ArgumentError if their seeds differ."""
        seeds = [number_of(group["seed"]) for group in groups if self._seeds]
        if seeds and seeds.count(seeds[0]) < len(seeds):
            raise ArgumentError(f"{self._kind}: all groups share one seed, got {', '.join(map(repr, seeds))}")
        for mine, theirs in zip(self._model.param_groups, groups, strict=True):
            now = with_floats({key: number_of(theirs[key]) for key in self.defaults})
            self._model.seed = now.pop("seed", self._model.seed)
            changed = {key: x for key, x in now.items() if getattr(x, "shape", ()) or mine[key] != x}
            if changed:
                mine.update(changed)

    def _named(self, slot: Slot) -> Names:
        """PyTorch's names of a parameter's states."""
        return VECTOR if self._kind == "Adafactor" and slot.weight.ndim < 2 else self._names

    def state(self, number: int) -> Plain:
        slot = self._model.slots[number]
        if not slot.step and not slot.arrays:
            if self._kind not in AT_ONCE:
                return {}
            self._make_states(slot)
        uncounted = self._kind in UNCOUNTED and not self._seeds  # stochastic rounding depends on the step
        counted: Plain = {} if uncounted else {"step": slot.step}
        if self._model.carried:
            counted[self._model.carried] = slot.carry
        if self._kind == "ASGD":
            counted["mu"] = 1 / max(1.0, slot.step - self._model.param_groups[slot.group]["t0"])
        named = self._named(slot)
        shown = {named.get(name, name): array for name, array in slot.arrays.items()}
        return counted | {name: array for name, array in shown.items() if name is not None}

    def _make_states(self, slot: Slot) -> None:
        group = self._model.param_groups[slot.group]
        updated = slot.weight.astype(np.float32) if self._model.uses_master(slot.weight) else slot.weight
        slot.arrays = {name: self._model.new_state(name, updated, group) for name in self._model.rule(group).states}

    def number(self, number: int, name: str) -> float:
        slot = self._model.slots[number]
        if name == "step" and slot.step is not None:
            return slot.step
        return slot.carry if name == self._model.carried else float(self.state(number)[name])

    def set_number(self, number: int, name: str, value: float) -> None:
        slot = self._model.slots[number]
        if name == "step":
            slot.step = count_of(value, slot.name)
        elif name == self._model.carried:
            slot.carry = value
        else:
            raise StatesError(f"parameter {slot.name!r}: {name} can't be set to {value}: it follows from step")

    def restore(self, groups: Sequence[Plain], states: Sequence[Plain]) -> None:
        if not groups:
            return
        self._follow(groups)
        document = self._model.state_dict()
        document["state"] = {}
        begun = list[Slot]()  # those whose step is 0
        for slot, state in zip(self._model.slots, states, strict=True):
            named = self._named(slot)
            ours = {theirs: name for name, theirs in named.items()}
            kept = {ours.get(name, name): value for name, value in state.items() if value is not None}
            kept.pop("mu", None)
            if not kept:
                continue
            for name in (name for name, theirs in named.items() if theirs is None):
                kept[name] = self._model.new_state(name, slot.weight, self._model.param_groups[slot.group])
            kept["step"] = count_of(kept.get("step", 1), slot.name)
            if not kept["step"]:
                begun.append(slot)
                kept["step"] = 1
            if self._model.carried:
                kept[self._model.carried] = float(kept.get(self._model.carried, self._model.first_carry))
            if self._model.uses_master(slot.weight):
                kept = with_master(kept, slot.weight)
            document["state"][slot.name] = kept
        self._model.load_state_dict(document)
        for slot in begun:
            slot.step = 0


def count_of(value: Any, name: str) -> int:
    """A number of steps. Raises StatesError if it isn't one."""
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise StatesError(f"parameter {name!r}: its step must be a number, got {value!r:.80}") from error
    if not (found.is_integer() and found >= 0):
        raise StatesError(f"parameter {name!r}: its step must be a whole number, 0 or more, got {found:g}")
    return int(found)


def with_master(state: Plain, weight: np.ndarray) -> Plain:
    """A state for a weight with a master copy. PyTorch's own states have none, and are as narrow as
    the weight."""
    wide = {
        name: x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.itemsize == 2 else x
        for name, x in state.items()
    }
    return wide if "master" in wide else {**wide, "master": weight.astype(np.float32)}
