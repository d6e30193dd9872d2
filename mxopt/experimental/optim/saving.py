"""An optimizer's options and states as plain data, and back, strictly."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import StatesError, counted
from mxopt.experimental.optim.groups import Options, ParameterGroup
from mxopt.optimizer.grouped import Slot
from mxopt.rules.rule import Rule
from mxopt.state_dtype import StateDtype, as_stored, dtype_of, seed_of
from mxopt.typing import Array, Document, Plain


class Optimizer(Protocol):
    """What is asked of an optimizer here."""

    param_groups: list[ParameterGroup]
    defaults: Options
    carried: ClassVar[str | None]
    first_carry: ClassVar[float]

    state_dtype: StateDtype
    seed: int | None

    def rule(self, group: Options) -> Rule: ...
    def uses_master(self, weight: Array) -> bool: ...


def state_dict(optimizer: Optimizer, members: list[list[Slot]]) -> Plain:
    """The document that `load_state_dict` takes: {"optimizer", "parameters", "param_groups",
    "state", "seed"}."""
    groups, state = [], {}
    for group, slots in zip(optimizer.param_groups, members, strict=True):
        groups.append({**group, "params": [slot.name for slot in slots]})
        for slot in slots:
            if slot.step:
                state[slot.name] = _kept(optimizer, group, slot)
    return {
        "optimizer": type(optimizer).__name__,
        "parameters": parameters(members),
        "param_groups": groups,
        "state": state,
        "seed": optimizer.seed or 0,
    }


def parameters(members: list[list[Slot]]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each parameter, also of those without a state."""
    return {s.name: (tuple(s.weight.shape), str(s.weight.dtype.newbyteorder("="))) for slots in members for s in slots}


def _kept(optimizer: Optimizer, group: Plain, slot: Slot) -> Plain:
    carried = {optimizer.carried: slot.carry} if optimizer.carried else {}
    return {"step": slot.step, **carried, **{name: slot.arrays[name].copy() for name in _names(optimizer, group, slot)}}


def _names(optimizer: Optimizer, group: Plain, slot: Slot) -> list[str]:
    """The arrays that are kept for a parameter."""
    return [*optimizer.rule(group).states, *(["master"] if optimizer.uses_master(slot.weight) else [])]


def load_state_dict(optimizer: Optimizer, members: list[list[Slot]], document: Document) -> None:
    """Restores all of `document`, or raises StatesError and restores nothing."""
    try:
        name, groups, state = document["optimizer"], document["param_groups"], document["state"]
        saved = [{**group, "params": list(group["params"])} for group in groups]
        state = {key: dict(kept) for key, kept in state.items()}
        theirs = {key: (tuple(shape), str(dtype)) for key, (shape, dtype) in document["parameters"].items()}
        seed = seed_of(document, optimizer.seed)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise StatesError(f"this is no state of an optimizer: {error!r}") from error
    if name != type(optimizer).__name__:
        raise StatesError(f"the states are those of {name}, this is {type(optimizer).__name__}")
    differences = _group_differences(saved, members)
    options: list[Plain] = []
    if not differences:
        differences = [
            f"parameter {key!r} is {_shown(theirs.get(key))} there, {_shown(own)} here"
            for key, own in parameters(members).items()
            if theirs.get(key) != own
        ]
        for number, group in enumerate(optimizer.param_groups):
            options.append(_options(optimizer, number, {**saved[number], "params": group["params"]}, differences))
        every = {slot.name: slot for slots in members for slot in slots}
        differences += [f"a state for {key!r}, which is no parameter" for key in state if key not in every]
        for number, slots in enumerate(members):
            for slot in slots:
                if slot.name in state and len(options) > number:
                    state[slot.name] = _as_stored(optimizer, slot, state[slot.name])
                    differences += _state_differences(optimizer, options[number], slot, state[slot.name])
    if differences:
        raise StatesError("the states don't fit: " + "; ".join(differences))
    optimizer.seed = seed
    for group, new, slots in zip(optimizer.param_groups, options, members, strict=True):
        group.update(new)
        for slot in slots:
            _restore(optimizer, slot, state.get(slot.name, {}))


def _group_differences(saved: list[Plain], members: list[list[Slot]]) -> list[str]:
    if len(saved) != len(members):
        return [f"they have {counted(len(saved), 'group')}, the optimizer {len(members)}"]
    found = []
    for number, (group, slots) in enumerate(zip(saved, members, strict=True)):
        there, here = group["params"], [slot.name for slot in slots]
        missing = ", ".join(repr(name) for name in here if name not in there)
        extra = ", ".join(repr(name) for name in there if name not in here)
        found += [f"group {number} lacks {missing}"] * bool(missing)
        found += [f"group {number} has {extra} too many"] * bool(extra)
    return found


def _shown(parameter: tuple[tuple[int, ...], str] | None) -> str:
    return "unknown" if parameter is None else f"{parameter[1]} {parameter[0]}"


def _options(optimizer: Optimizer, number: int, options: Plain, differences: list[str]) -> Plain:
    group = optimizer.param_groups[number]
    missing = [key for key in optimizer.defaults if key not in options]
    if missing:
        differences.append(f"group {number} lacks the options {', '.join(missing)}")
        return dict(group)
    try:
        return group.checked(options)
    except (TypeError, ValueError) as error:
        differences.append(str(error))
        return dict(group)


def _dtype(optimizer: Optimizer, slot: Slot, name: str) -> np.dtype:
    """What an array is to be stored in."""
    master = np.dtype(np.float32)
    if name == "master":
        return master
    own = master if optimizer.uses_master(slot.weight) else slot.weight.dtype.newbyteorder("=")
    return dtype_of(optimizer.state_dtype, slot.weight) or own


def _as_stored(optimizer: Optimizer, slot: Slot, kept: Plain) -> Plain:
    return {name: as_stored(value, _dtype(optimizer, slot, name)) for name, value in kept.items()}


def _state_differences(optimizer: Optimizer, group: Plain, slot: Slot, kept: Document) -> list[str]:
    names = _names(optimizer, group, slot)
    numbers: dict[str, type] = {"step": int} | ({optimizer.carried: float} if optimizer.carried else {})
    wrong = [f"{slot.place} lacks {name!r}" for name in [*numbers, *names] if name not in kept]
    for name, value in kept.items():
        if name in numbers:
            if type(value) is not numbers[name] or (isinstance(value, int) and value < 1):
                wrong.append(f"{slot.place}: {name!r} is {value!r}")
        elif name not in names:
            wrong.append(f"{slot.place} keeps no {name!r}")
        elif not arrays.is_array(value):
            wrong.append(f"{slot.place}: {name!r} is no array")
        elif (value.shape, value.dtype) != (slot.weight.shape, dtype := _dtype(optimizer, slot, name)):
            wrong.append(f"{slot.place}: {name!r} is {value.dtype} {value.shape}, not {dtype} {slot.weight.shape}")
    return wrong


def _restore(optimizer: Optimizer, slot: Slot, kept: Plain) -> None:
    slot.step = kept.pop("step", 0)
    slot.carry = kept.pop(optimizer.carried, optimizer.first_carry) if optimizer.carried else optimizer.first_carry
    slot.arrays = {name: arrays.to_device_of(array.copy(), slot.weight) for name, array in kept.items()}
