"""SGD and its relatives, among them those that step by a sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from mxopt.engine import Tensor, arrays
from mxopt.optimizer.base import Index, register
from mxopt.optimizer.momentum import MomentumOptimizer
from mxopt.optimizer.options import Lazy, Momentum, OptimizerOptions, OptionsAndRate, Rate, SGLDOptions
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.unsigned import UnsignedRate
from mxopt.options import Exact, Option, Unpack
from mxopt.rules import sgd
from mxopt.rules.rule import Rule
from mxopt.typing import Array, State


@register
class SGD(MomentumOptimizer):
    """Stochastic gradient descent, https://doi.org/10.1214/aoms/1177729586, with momentum,
    https://doi.org/10.1016/0041-5553(64)90137-5.
    """

    rules = sgd.sgd, sgd.sgd_momentum
    inner_first = True
    aggregates = True

    def __init__(self, momentum: Momentum = 0.0, lazy_update: Lazy = True, **base: Unpack[OptionsAndRate]) -> None:
        super().__init__(**base)
        self.momentum = momentum
        self.lazy_update = lazy_update


@register
class ccSGD(SGD):  # noqa: N801
    """An old name of `SGD`."""


@register
class NAG(MomentumOptimizer):
    """Nesterov's accelerated gradient, https://proceedings.mlr.press/v28/sutskever13.html. As in
    MXNet the update is always lazy without momentum.
    """

    rules = sgd.sgd, sgd.nag
    inner_first = True

    def __init__(self, momentum: Momentum = 0.0, lazy_update: Lazy = False, **base: Unpack[OptionsAndRate]) -> None:
        super().__init__(**base)
        self.momentum = momentum
        self.lazy_update: bool = lazy_update or not momentum


@register
class Signum(MomentumOptimizer):
    """Steps of one size in the direction of the sign of the momentum (or of the gradient),
    arXiv:1802.04434. Without momentum that is signSGD.
    """

    rules = sgd.signsgd, sgd.signum

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: Momentum = 0.9,
        wd_lh: Annotated[float | None, Option("", "decoupled weight decay, arXiv:1711.05101")] = 0.0,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate=learning_rate, **base)
        self.momentum = momentum
        self.wd_lh: float = wd_lh or 0.0
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.momentum, self.wd_lh) if self.has_velocity else (lr, self.wd_lh)


@register
class Lion(RuleOptimizer):
    """Steps of one size by the sign of a mix of gradient and momentum,
    https://arxiv.org/abs/2302.06675. `wd` is decoupled from the gradient, as in AdamW; for the same
    effect it must be 3 to 10 times what it is there, and the learning rate smaller by that factor.
    Not in MXNet.
    """

    rule: Rule = sgd.lion

    def __init__(
        self,
        learning_rate: Rate = 1e-4,
        beta1: Annotated[float, Option("", "how much of the momentum is in the step")] = 0.9,
        beta2: Annotated[float, Option("", "decay of the momentum")] = 0.99,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate=learning_rate, **base)
        self.beta1 = beta1
        self.beta2 = beta2
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.beta1, self.beta2


@register
class DCASGD(MomentumOptimizer):
    """SGD that makes up for the delay of asynchronous gradients, arXiv:1609.08326."""

    rules = sgd.dcasgd, sgd.dcasgd_momentum
    per_worker_state: ClassVar[int | None] = 1

    def __init__(
        self,
        momentum: Momentum = 0.0,
        lamda: Annotated[float, Option("", "how much is made up for")] = 0.04,
        lazy_update: Lazy = False,
        **base: Unpack[OptionsAndRate],
    ) -> None:
        super().__init__(**base)
        self.momentum = momentum
        self.lamda = lamda
        self.lazy_update = lazy_update

    def create_state(self, index: Index, weight: Array) -> State:
        """(velocity or None, previous weight)."""
        velocity = self.new_state("velocity", weight) if self.has_velocity else None
        return velocity, self.new_state("previous", weight)

    def new_state(self, name: str, weight: Array) -> Array:
        state = super().new_state(name, weight)
        if name == "previous":
            state[...] = weight
        return state

    def state_arrays(self, state: State) -> tuple[Array, ...]:
        return tuple(array for array in state if array is not None)

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.lamda, self.momentum) if self.has_velocity else (lr, self.lamda)


@register
class SGLD(UnsignedRate):
    """Stochastic gradient Langevin dynamics, https://papers.nips.cc/paper/4883: descent with noise
    of variance `learning_rate`.

    The noise is a function of the seed, the parameter's index, its update count and the place in
    the array: two runs with one seed are the same, resumed or not.
    """

    def __init__(
        self,
        seed: Annotated[int | None, Exact("[0, 9223372036854775808)", "without it one is drawn")] = None,
        **base: Unpack[SGLDOptions],
    ) -> None:
        super().__init__(**base)
        drawn = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
        self.seed: int | None = seed if seed is not None else drawn
        self.drawn_seed = drawn if seed is None else None

    rule: Rule = sgd.sgld
    elementwise = rowwise = False  # the noise depends on the whole array

    def create_state(self, index: Index, weight: Array) -> None:
        """None: the noise is not kept."""

    def _tensors(self, indices: Sequence[Index], *arguments: Any) -> list[Tensor]:
        tensors = super()._tensors(indices, *arguments)
        for index, tensor in zip(indices, tensors, strict=True):
            tensor.noise = self.random(index)
        return tensors

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return self._unsigned(lr, index), math.sqrt(lr)


@register
class Test(RuleOptimizer):
    """Adds the rescaled gradient to the weight, and keeps the new weight as its state. For tests.

    As in MXNet its updates don't move `num_update`.
    """

    __test__ = False  # not a test of pytest's
    rule: Rule = sgd.test
    own_num_update = True

    def create_state(self, index: Index, weight: Array) -> State:
        """A copy of the weight."""
        return arrays.as_array(weight, self.called(index)).copy()

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr,)

    def _update_count(self, index: Index | Sequence[Index]) -> None:
        before = self.num_update
        super()._update_count(index)
        self.num_update = before
