"""What is kept of each parameter, as PyTorch shows it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NoReturn

import numpy as np
import torch

from mxopt.engine import arrays
from mxopt.errors import UsageError
from mxopt.typing import Array, Plain


def _refuse(*_: object, **__: object) -> NoReturn:
    raise UsageError(
        "optimizer.state shows what is kept; to change that write into its tensors (`exp_avg.zero_()`), give"
        " load_state_dict a state, or assign a dict of parameters and their states to optimizer.state"
    )


class State(dict[str, Any]):
    """The state of one parameter: a look at it, which can't change what is kept.

    The tensors in it that have axes lie over the memory that steps change, so what is in them may
    be changed; single numbers, as `step`, are copies.
    """

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self or not _same(self[name], value):  # a library moves all to the device where it is
            _refuse()

    __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return State, (dict(self),)


class States(defaultdict[torch.Tensor, State]):
    """The states of all parameters, by parameter: a look at them, too."""

    def __init__(self, kept: dict[torch.Tensor, Plain]) -> None:
        super().__init__(State, {tensor: State(state) for tensor, state in kept.items()})

    def __setitem__(self, tensor: torch.Tensor, state: Plain) -> None:
        there = self.get(tensor, State())
        if there.keys() != state.keys() or not all(_same(x, state[name]) for name, x in there.items()):
            _refuse()

    __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return States, (dict(self),)


def _same(one: Array, other: Array) -> bool:
    return one is other or (torch.is_tensor(other) and torch.equal(one, other))


def as_tensor(value: Array) -> Any:
    """A state as PyTorch keeps it: arrays as tensors over their memory, numbers as tensors without
    axes."""
    if not isinstance(value, np.ndarray):
        return torch.tensor(float(value))
    if value.dtype == arrays.BFLOAT16:  # which PyTorch doesn't take from NumPy
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)


def as_array(value: Array) -> Any:
    """Its opposite, a copy; what is no tensor stays."""
    return arrays.as_array(value, "a state").copy() if isinstance(value, torch.Tensor) else value
