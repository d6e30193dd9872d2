"""What is kept of each parameter, as PyTorch shows it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NoReturn

import numpy as np
import torch

from mxopt.engine import arrays
from mxopt.errors import UsageError
from mxopt.typing import Array, Plain


class States(defaultdict[torch.Tensor, Plain]):
    """The states of all parameters, by parameter: a look at them, which can't change what is kept.

    The tensors in it lie over the memory that steps change, so what is in them may be changed.
    """

    def __init__(self, kept: dict[torch.Tensor, Plain]) -> None:
        super().__init__(dict, kept)

    def __setitem__(self, tensor: torch.Tensor, state: Plain) -> None:
        if not _same(self.get(tensor, {}), state):  # as where a library moves all to the device where it is
            self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError(
            "optimizer.state shows what is kept; to change that give load_state_dict a state, or assign a dict of"
            " parameters and their states to optimizer.state"
        )

    __delitem__ = __ior__ = clear = pop = popitem = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return States, (dict(self),)


def _same(one: Plain, other: Plain) -> bool:
    if one.keys() != other.keys():
        return False
    return all(x is other[k] or (torch.is_tensor(other[k]) and torch.equal(x, other[k])) for k, x in one.items())


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
