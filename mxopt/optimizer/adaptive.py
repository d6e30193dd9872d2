"""AdaGrad, AdaDelta, RMSProp and Ftrl."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mxopt.optimizer.base import Index, register
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.unsigned import UnsignedRate
from mxopt.rules import adaptive
from mxopt.rules.rule import Rule

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mxopt.optimizer.options import Options, OptionsAndRate


@register
class AdaGrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html.

    Parameters
    ----------
    eps : float
        Added inside the root at every update.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`. Weight decay is decoupled: `lr * wd * weight`.
    """

    rule = adaptive.adagrad

    def __init__(self, eps: float = 1e-7, lazy_update: bool = True, **kwargs: Unpack[OptionsAndRate]) -> None:
        super().__init__(**kwargs)
        self.eps = eps
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.eps


@register
class AdaDelta(RuleOptimizer):
    """AdaDelta, arXiv:1212.5701. As in MXNet the learning rate has no effect, and `wd * weight` is subtracted as it is.

    Parameters
    ----------
    rho : float
        Decay of the running means.
    epsilon : float
        Added inside both roots.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`.
    """

    rule = adaptive.adadelta

    def __init__(
        self, rho: float = 0.90, epsilon: float = 1e-5, lazy_update: bool = False, **kwargs: Unpack[OptionsAndRate]
    ) -> None:
        super().__init__(**kwargs)
        self.rho = rho
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.rho, 1 - self.rho, self.epsilon


@register
class RMSProp(RuleOptimizer):
    """RMSProp, of Tieleman and Hinton, or centered, of Graves (arXiv:1308.0850).

    Parameters
    ----------
    learning_rate : float
    gamma1 : float
        Decay of the running means.
    gamma2 : float
        Momentum; only used if `centered`.
    epsilon : float
        Added inside the root.
    centered : bool
        Divide by the root of the variance instead of the mean square.
    clip_weights : float, optional
        Weights are limited to [-clip_weights, clip_weights]; None and 0 mean no limit.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`. Weight decay is added to the gradient, before it is clipped.
    """

    def __init__(
        self,
        learning_rate: float | None = 0.001,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        lazy_update: bool = False,
        **kwargs: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.gamma1 = gamma1
        self.gamma2 = gamma2
        self.epsilon = epsilon
        self.centered = centered
        self.clip_weights = clip_weights
        self.lazy_update = lazy_update

    @property
    def rule(self) -> Rule:
        return adaptive.rmsprop_centered if self.centered else adaptive.rmsprop

    def create_state(self, index: Index, weight: Any) -> Any:
        """(mean square,), or (mean square, mean, velocity) if centered."""
        return tuple(self.new_state(name, weight) for name in self.rule.states)

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        bound = self.clip_weights if self.clip_weights and self.clip_weights > 0 else math.inf
        if self.centered:
            return lr, self.gamma1, self.gamma2, self.epsilon, bound
        return lr, self.gamma1, self.epsilon, bound


@register
class Ftrl(UnsignedRate):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/.

    Parameters
    ----------
    lamda1 : float
        L1 regularisation; `wd` is the L2 one.
    learning_rate : float
    beta : float
        Smooths the rate of an element that has seen little.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    **kwargs
        See `Optimizer`. A parameter whose learning rate is 0 is left alone; a negative one is refused.
    """

    rule = adaptive.ftrl

    def __init__(
        self,
        lamda1: float = 0.01,
        learning_rate: float | None = 0.1,
        beta: float = 1,
        lazy_update: bool = False,
        **kwargs: Unpack[Options],
    ) -> None:
        super().__init__(**kwargs)
        if learning_rate is not None:
            self.lr = self._unsigned(learning_rate)
        self.lamda1 = lamda1
        self.beta = beta
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return *super().scalars(index, lr, t), self.lamda1, self.beta
