"""What updates an optimizer's tensors: the rules of `experimental.optim`, which are PyTorch's, or
those of `create`.

Both take the parameters by number, in the order of all groups, and a group's options as they stand
in `param_groups`.
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

# What PyTorch's optimizers take besides, and why it is not taken here.
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
    """Whether some optimizer keeps something of a parameter by this name. By any other it is
    somebody else's."""
    return name in KEPT or name in Rule.all_states or (isinstance(name, str) and name.startswith("state_"))


class Backend(Protocol):
    """How an optimizer updates its parameters.

    `defaults` are the options of a group and their values. `group` is one as it was given, with the
    options by those names, or raises. `add` takes a group's parameters, `update` steps those that
    have a gradient. `repeat` does what the last `update` did, by gradients at these addresses, each
    a whole one of its parameter's dtype and size, without gaps; False where it can't. `state` is
    what is kept of a parameter, an int "step" and arrays and numbers by name, `restore` its
    opposite; `number` is one of the numbers, which `set_number` changes, or raises StatesError.
    """

    defaults: Plain

    def group(self, given: Plain, whose: str) -> Plain: ...
    def add(self, group: Plain, weights: Sequence[np.ndarray], names: Sequence[str]) -> None: ...
    def update(self, groups: Sequence[Plain], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None: ...
    def repeat(self, groups: Sequence[Plain], places: list[int]) -> bool: ...
    def state(self, number: int) -> Plain: ...
    def number(self, number: int, name: str) -> float: ...
    def set_number(self, number: int, name: str, value: float) -> None: ...
    def restore(self, groups: Sequence[Plain], states: Sequence[Plain]) -> None: ...


def backend_of(name: str, options: Plain) -> Backend:
    """What updates under a name, with these options: experimental's where it has some, else
    `create`'s."""
    kinds = {kind.lower(): kind for kind in STATES}
    known = isinstance(name, str) and name.lower()
    if known in NOT_HERE:
        raise UnknownNameError(f"there is no optimizer {name!r} here: {NOT_HERE[known]}")
    if known not in kinds and known not in set(ByName.registry):
        raise UnknownNameError(
            f"there is no optimizer {name!r}: {nearest(str(name), sorted({*kinds, *ByName.registry}))}"
        )
    refuse(name, options)
    return OfExperimental(kinds[known], options) if known in kinds else OfCreate(name, options)


def refuse(whose: str, options: Iterable[str]) -> None:
    """Raises for an option of PyTorch's that is not taken here, and says why."""
    for key in options:
        if key in NOT_TAKEN:
            raise UnknownArgumentError(f"{whose} has no option {key!r}: leave it out; {NOT_TAKEN[key]}")
