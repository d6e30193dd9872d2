"""SGD and its relatives, among them those that step by a sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mxopt.engine import Tensor, arrays
from mxopt.engine.noise import Noise
from mxopt.optimizer.base import Index, register
from mxopt.optimizer.momentum import MomentumOptimizer
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.unsigned import UnsignedRate
from mxopt.rules import sgd
from mxopt.rules.rule import Rule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mxopt.optimizer.options import Options, OptionsAndRate


@register
class SGD(MomentumOptimizer):
    """Stochastic gradient descent, https://doi.org/10.1214/aoms/1177729586, with momentum,
    https://doi.org/10.1016/0041-5553(64)90137-5.

    Parameters
    ----------
    momentum : float
        0 for plain descent, which keeps no state.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`.
    """

    inner_first = True
    aggregates = True

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Unpack[OptionsAndRate]) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.lazy_update = lazy_update

    @property
    def rule(self) -> Rule:
        return sgd.sgd_momentum if self.has_velocity else sgd.sgd

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.momentum) if self.has_velocity else (lr,)


@register
class ccSGD(SGD):  # noqa: N801
    """An old name of `SGD`."""


@register
class NAG(MomentumOptimizer):
    """Nesterov's accelerated gradient, https://proceedings.mlr.press/v28/sutskever13.html.

    Parameters
    ----------
    momentum : float
        0 for plain descent.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none. As in MXNet this is always so without momentum.
    **kwargs
        See `Optimizer`.
    """

    inner_first = True

    def __init__(self, momentum: float = 0.0, lazy_update: bool = False, **kwargs: Unpack[OptionsAndRate]) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.lazy_update = lazy_update or not momentum

    @property
    def rule(self) -> Rule:
        return sgd.nag if self.has_velocity else sgd.sgd

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.momentum) if self.has_velocity else (lr,)


@register
class Signum(MomentumOptimizer):
    """Steps of one size in the direction of the sign of the momentum (or of the gradient), arXiv:1802.04434.

    Parameters
    ----------
    learning_rate : float
        The size of the step.
    momentum : float
        0 for signSGD.
    wd_lh : float
        Decoupled weight decay, arXiv:1711.05101.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | None = 0.01,
        momentum: float = 0.9,
        wd_lh: float = 0.0,
        lazy_update: bool = False,
        **kwargs: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum = momentum
        self.wd_lh: float = wd_lh or 0.0
        self.lazy_update = lazy_update

    @property
    def rule(self) -> Rule:
        return sgd.signum if self.has_velocity else sgd.signsgd

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.momentum, self.wd_lh) if self.has_velocity else (lr, self.wd_lh)


@register
class Lion(RuleOptimizer):
    """Steps of one size by the sign of a mix of gradient and momentum, https://arxiv.org/abs/2302.06675. `wd` is
    decoupled from the gradient, as in AdamW. Not in MXNet.

    Parameters
    ----------
    learning_rate : float
        The size of the step: 3 to 10 times less than for AdamW, with `wd` so much more.
    beta1 : float
        How much of the momentum is in the step.
    beta2 : float
        Decay of the momentum.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`.
    """

    rule = sgd.lion

    def __init__(
        self,
        learning_rate: float | None = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        lazy_update: bool = False,
        **kwargs: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2, self.lazy_update = beta1, beta2, lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.beta1, self.beta2


@register
class DCASGD(MomentumOptimizer):
    """SGD that makes up for the delay of asynchronous gradients, arXiv:1609.08326.

    Parameters
    ----------
    momentum : float
        0 for none.
    lamda : float
        How much is made up for.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`.
    """

    per_worker_state = 1

    def __init__(
        self, momentum: float = 0.0, lamda: float = 0.04, lazy_update: bool = False, **kwargs: Unpack[OptionsAndRate]
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.lamda = lamda
        self.lazy_update = lazy_update

    @property
    def rule(self) -> Rule:
        return sgd.dcasgd_momentum if self.has_velocity else sgd.dcasgd

    def create_state(self, index: Index, weight: Any) -> Any:
        """(velocity or None, previous weight)."""
        velocity = self.new_state("velocity", weight) if self.has_velocity else None
        return velocity, self.new_state("previous", weight)

    def new_state(self, name: str, weight: Any) -> Any:
        state = super().new_state(name, weight)
        if name == "previous":
            state[...] = weight
        return state

    def state_arrays(self, state: Any) -> tuple[Any, ...]:
        return tuple(array for array in state if array is not None)

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr, self.lamda, self.momentum) if self.has_velocity else (lr, self.lamda)


@register
class SGLD(UnsignedRate):
    """Stochastic gradient Langevin dynamics, https://papers.nips.cc/paper/4883: descent with noise of variance
    `learning_rate`.

    Parameters
    ----------
    seed : int, optional
        The noise is a function of the seed, the parameter's index, its update count and the place in the array: two
        runs with one seed are the same, resumed or not. Without it a seed is drawn.
    **kwargs
        See `Optimizer`.
    """

    def __init__(self, seed: int | None = None, **kwargs: Unpack[OptionsAndRate]) -> None:
        super().__init__(**kwargs)
        self.seed: int = (
            seed if seed is not None else int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
        )

    rule = sgd.sgld
    elementwise = False  # the noise depends on the whole array

    def create_state(self, index: Index, weight: Any) -> None:
        """None: the noise is not kept."""

    def _tensors(self, indices: Sequence[Index], *arguments: Any) -> list[Tensor]:
        tensors = super()._tensors(indices, *arguments)
        for index, tensor in zip(indices, tensors, strict=True):
            dtype = np.float64 if tensor.weight.dtype.itemsize == 8 else np.float32
            tensor.states = (Noise(tensor.weight.shape, dtype, index, partial(self._stream, index)),)
        return tensors

    def _stream(self, index: Index) -> tuple[int, int]:
        return self.seed, self._index_update_count[index]

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return *super().scalars(index, lr, t), math.sqrt(lr)


@register
class Test(RuleOptimizer):
    """Adds the rescaled gradient to the weight, and keeps the new weight as its state. For tests.

    As in MXNet its updates don't move `num_update`.
    """

    __test__ = False  # not a test of pytest's
    rule = sgd.test
    own_num_update = True

    def create_state(self, index: Index, weight: Any) -> Any:
        """A copy of the weight."""
        return arrays.as_array(weight, f"parameter {index!r}").copy()

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return (lr,)

    def _update_count(self, index: Any) -> None:
        before = self.num_update
        super()._update_count(index)
        self.num_update = before
