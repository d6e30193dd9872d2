"""What updates the tensors of an optimizer: `experimental.optim`, whose rules are PyTorch's too, or
`create`.

Both number the parameters in the order of all groups, and take a group's options as `param_groups`
has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from mxopt.errors import UnknownArgumentError, UnknownNameError, nearest
from mxopt.optimizer import Optimizer as ByName
from mxopt.rules.rule import Rule
from mxopt.torch.of_create import OfCreate
from mxopt.torch.of_experimental import KEPT, STATES, OfExperimental
from mxopt.typing import Array, Plain

# Options of PyTorch's optimizers that are refused here, and why.
ONE_WAY = "there is one way to update here, and it is a fused one"
NOT_TAKEN = {
    "foreach": ONE_WAY,
    "fused": ONE_WAY,
    "capturable": "it is for CUDA graphs, and parameters are on the CPU here",
    "differentiable": "autograd doesn't record what a step does here",
    "decoupled_weight_decay": "of these optimizers 'adamw' decays so, and no other does",
}
# PyTorch's optimizers that have no rule, and what to do instead.
NOT_HERE = {
    "lbfgs": "a step of it computes the loss many times, and a rule has one gradient: use torch.optim.LBFGS",
    "muon": "its steps are products of matrices, which no rule has: use torch.optim.Muon for the matrices, and an"
    " Optimizer of mxopt.torch for the other parameters",
}


def is_kept(name: object) -> bool:
    """Whether some optimizer keeps a state of this name. Any other belongs to the caller."""
    return name in KEPT or name in Rule.all_states or (isinstance(name, str) and name.startswith("state_"))


class Backend(Protocol):
    """How an optimizer updates its parameters.

    - `defaults`: a group's options and their values.
    - `group` returns a given group with its options under the names of `defaults`, or raises.
    - `add` takes a group's parameters.
    - `update` steps the parameters that have a gradient.
    - `repeat` does what the last `update` did, with gradients at these addresses: contiguous, each
      of its parameter's dtype and size. It returns False if it can't.
    - `state` returns what is kept of a parameter: an int "step", and arrays and numbers by name.
      `restore` sets that for all parameters.
    - `number` returns one of those numbers; `set_number` changes it, or raises StatesError.
    """

    defaults: Plain

    def group(self, given: Plain, whose: str) -> Plain: ...
    def add(self, group: Plain, weights: Sequence[np.ndarray], names: Sequence[str]) -> None: ...
    def update(self, groups: Sequence[Plain], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None: ...
    def repeat(self, groups: Sequence[Plain], places: Sequence[int], first: Iterable[object]) -> bool: ...
    def state(self, number: int) -> Plain: ...
    def number(self, number: int, name: str) -> float: ...
    def set_number(self, number: int, name: str, value: float) -> None: ...
    def restore(self, groups: Sequence[Plain], states: Sequence[Plain]) -> None: ...


def backend_of(name: str, options: Plain) -> Backend:
    """The backend of a name: `experimental.optim` where it has the optimizer, else `create`."""
    if not isinstance(name, str):
        given = type(name).__name__
        raise UnknownNameError(f"the second argument is an optimizer's name, behind the parameters; got a {given}")
    kinds = {kind.lower(): kind for kind in STATES}
    known = name.lower()
    if known in NOT_HERE:
        raise UnknownNameError(f"there is no optimizer {name!r} here: {NOT_HERE[known]}")
    if known not in kinds and known not in set(ByName.registry):
        raise UnknownNameError(f"there is no optimizer {name!r}: {nearest(name, sorted({*kinds, *ByName.registry}))}")
    refuse(name, options)
    return OfExperimental(kinds[known], options) if known in kinds else OfCreate(name, options)


def refuse(whose: str, options: Iterable[str]) -> None:
    """Raises for an option of PyTorch's that is refused here, and says why."""
    for key in options:
        if key in NOT_TAKEN:
            raise UnknownArgumentError(f"{whose} has no option {key!r}: leave it out; {NOT_TAKEN[key]}")
