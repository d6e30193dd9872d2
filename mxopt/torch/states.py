"""The states of parameters as PyTorch shows them, and whether saved ones fit the optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary, ref

import numpy as np
import torch

from mxopt.arguments import arguments_of
from mxopt.engine import arrays
from mxopt.errors import StatesError, UsageError
from mxopt.experimental import optim
from mxopt.torch.backends import NOT_TAKEN, is_kept
from mxopt.torch.held import real
from mxopt.typing import Array, Plain


def _changing(name: str) -> Callable[..., Any]:
    """A method that changes a dict, and reports that."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.changes()
        return getattr(dict, name)(self, *args, **kwargs)

    return method


class _Noting(dict[Any, Any]):
    """A dict that reports each change of its keys or values."""

    def changes(self) -> None:
        """Called before each change."""

    __delitem__ = _changing("__delitem__")
    __ior__ = _changing("__ior__")
    clear, pop, popitem = map(_changing, ("clear", "pop", "popitem"))
    setdefault, update = map(_changing, ("setdefault", "update"))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is a plain dict."""
        return dict, (dict(self),)


class State(_Noting):
    """The state of one parameter. Its tensors lie over the memory that steps change, or follow it
    (`Numbers`)."""

    def __init__(self, of: States, kept: Plain) -> None:
        super().__init__(kept)
        self._of = ref(of)

    def changes(self) -> None:
        of = self._of()
        if of is None:
            raise UsageError(
                "this state was looked at before the last step: to exchange what is in it, take it anew from the"
                " optimizer's state"
            )
        of.changes()

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self or not _same(name, self[name], value):
            self.changes()
            super().__setitem__(name, value)


class States(_Noting):
    """The states of all parameters, by parameter. Once `changed`, it replaces the optimizer's
    states at the next step."""

    def __init__(self, kept: Mapping[Any, Any]) -> None:
        super().__init__()
        self.renew(kept)

    def changes(self) -> None:
        self.changed = True

    def __missing__(self, tensor: torch.Tensor) -> State:
        state = State(self, {})
        super().__setitem__(tensor, state)
        return state

    def __setitem__(self, key: Array, state: Array) -> None:
        if torch.is_tensor(key):
            check_state(state)
        there = self.get(key)
        if not (isinstance(state, Mapping) and isinstance(there, Mapping) and _alike(there, state)):
            self.changes()
            super().__setitem__(key, state)

    def renew(self, kept: Mapping[Any, Any]) -> None:
        """Shows the states as they are now."""
        for key in self.keys() - kept.keys():
            dict.__delitem__(self, key)
        for key, state in kept.items():
            mine = self.get(key)
            if isinstance(mine, State) and isinstance(state, Mapping):
                dict.clear(mine)
                dict.update(mine, state)
            else:
                dict.__setitem__(self, key, State(self, state) if torch.is_tensor(key) else state)
        self.changed = False


def check_state(state: object) -> None:
    """Raises StatesError for anything that can't be the state of a parameter."""
    if not isinstance(state, Mapping):
        raise StatesError(f"the state of a parameter is a dict, not {state!r:.80}")


NumberKey = tuple[int, str]  # a parameter's number, and the name of the state


class Numbers:
    """The single numbers of states, such as `step`, as tensors without axes. Writing into one
    changes the state, and each follows the state for as long as someone holds it."""

    def __init__(self) -> None:
        self._seen = WeakValueDictionary[NumberKey, np.ndarray]()  # the tensors' memory
        self._new = dict[NumberKey, np.ndarray]()  # keeps new ones alive: a caller may write one and drop it
        self._known = dict[NumberKey, float]()

    def __bool__(self) -> bool:
        return bool(self._seen)

    def tensor(self, key: NumberKey, value: float) -> torch.Tensor:
        """A tensor that shows a number."""
        memory = self._seen.get(key)
        if memory is None:
            memory = self._seen[key] = np.empty(())
        memory[...] = self._known[key] = float(value)
        self._new[key] = memory
        return torch.from_numpy(memory)

    def written(self) -> Iterator[tuple[NumberKey, float]]:
        """What has been written into them since the last look."""
        for key, memory in list(self._seen.items()):
            if memory != self._known[key]:
                yield key, float(memory)
        self._new.clear()

    def follow(self, number: Callable[[int, str], float]) -> None:
        """Sets each to what `number` returns for it."""
        for key, memory in list(self._seen.items()):
            memory[...] = self._known[key] = float(number(*key))


def _alike(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(_same(name, x, other[name]) for name, x in one.items())


def _same(name: object, one: Array, other: Array) -> bool:
    """Whether replacing one value by the other changes nothing, as when a library moves all states
    to the device that they are on."""
    if one is other or not is_kept(name) or not (torch.is_tensor(one) and torch.is_tensor(other)):
        return one is other
    return one.dtype == other.dtype and bool(torch.equal(one, other))


def as_tensor(value: np.ndarray, of: torch.Tensor) -> torch.Tensor:
    """A parameter's state as PyTorch has it: a tensor over its memory, complex if the parameter
    is."""
    if value.dtype == arrays.BFLOAT16:  # PyTorch doesn't take it from NumPy
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    tensor = torch.from_numpy(value)
    if not (of.is_complex() and value.shape == (*of.shape, 2)):
        return tensor
    return torch.view_as_complex(tensor) if value.size else torch.empty_like(of)  # it takes no empty ones


def as_array(value: Array) -> Any:
    """A copy of a tensor as an array; anything else as it is."""
    return arrays.as_array(real(value, "a state"), "a state").copy() if isinstance(value, torch.Tensor) else value


def by_parameter(saved: Mapping[Any, Any], tensors: Mapping[Any, torch.Tensor]) -> dict[Any, Any]:
    """Saved states, by parameter instead of its number. Entries of the caller's are copied."""

    def taken(state: Any) -> Any:
        if not isinstance(state, Mapping):
            return copy.deepcopy(state)
        return {name: x if is_kept(name) else copy.deepcopy(x) for name, x in state.items()}

    return {tensors.get(key, key): taken(state) for key, state in saved.items()}


def is_saved(states: Any) -> bool:
    """Whether it has the form of a `state_dict`."""
    if not isinstance(states, Mapping) or not {"param_groups", "state"} <= states.keys():
        return False
    groups, state = states["param_groups"], states["state"]
    if not isinstance(groups, list | tuple) or not isinstance(state, Mapping):
        return False
    lists = [isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple) for group in groups]
    return all(lists)


def groups_of(saved: Sequence[Plain], groups: Sequence[Plain], own: Plain, name: str) -> list[Plain]:
    """An optimizer's groups with the saved options; the optimizer is called `name`, and its options
    are `own`. Raises StatesError if what was saved is of another optimizer, or of other groups."""
    counts = [len(group["params"]) for group in saved], [len(group["params"]) for group in groups]
    if counts[0] != counts[1]:
        raise StatesError(f"the states are for groups of {counts[0]} parameters, not of {counts[1]}")
    whose = "the states are those of another optimizer: groups"
    lacking = sorted(
        {key for group in saved for key in own.keys() - group.keys()} - {"lazy_update", "seed", "maximize"}
    )
    if lacking:
        raise StatesError(f"{whose} without {', '.join(lacking)}")
    telling = optim.Optimizer.names - {*arguments_of(optim.Optimizer), "lr", "maximize"}
    pairs = list(zip(groups, saved, strict=True))
    foreign = sorted({key for mine, theirs in pairs for key in telling & theirs.keys() - mine.keys()})
    if foreign:
        raise StatesError(f"{whose} with {', '.join(foreign)}")
    decoupled = name.lower() == "adamw"
    decaying = [group for group in saved if group.get("weight_decay")]
    if any(group.get("decoupled_weight_decay", decoupled) != decoupled for group in decaying):
        kind = "part of the gradient" if decoupled else "decoupled"
        raise StatesError(f"the states are those of an optimizer whose weight decay is {kind}, {name}'s isn't")
    old_default = {"maximize": False} if "maximize" in own else {}  # older PyTorch doesn't save it
    left_out = {"params", *NOT_TAKEN}
    return [
        {key: value for key, value in mine.items() if key in {"params", "param_names", *own}}
        | old_default
        | {key: value for key, value in theirs.items() if key not in left_out}
        for mine, theirs in pairs
    ]
