"""AdaGrad, AdaDelta, RMSProp, Ftrl and Adafactor."""

from __future__ import annotations

import math
from typing import Annotated, Any

from mxopt.optimizer.base import Index, register
from mxopt.optimizer.options import Lazy, OptimizerOptions, OptionsAndRate, Rate
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.unsigned import UnsignedRate
from mxopt.options import Option, Unpack
from mxopt.rules import adafactor, adaptive
from mxopt.rules.rule import Rule
from mxopt.typing import Array, State


@register
class AdaGrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html. Weight decay is decoupled: `lr * wd *
    weight`."""

    rule: Rule = adaptive.adagrad

    def __init__(
        self,
        eps: Annotated[float, Option("", "added inside the root at every update")] = 1e-7,
        lazy_update: Lazy = True,
        **base: Unpack[OptionsAndRate],
    ) -> None:
        super().__init__(**base)
        self.eps = eps
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.eps


@register
class AdaDelta(RuleOptimizer):
    """AdaDelta, arXiv:1212.5701. As in MXNet the learning rate has no effect, not even on weight
    decay: `wd * weight` is subtracted.
    """

    rule: Rule = adaptive.adadelta

    def __init__(
        self,
        rho: Annotated[float, Option("", "decay of the running means")] = 0.90,
        epsilon: Annotated[float, Option("", "added inside both roots")] = 1e-5,
        lazy_update: Lazy = False,
        **base: Unpack[OptionsAndRate],
    ) -> None:
        super().__init__(**base)
        self.rho = rho
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        rho = float(self.rho)
        return lr, rho, 1 - rho, self.epsilon


@register
class RMSProp(RuleOptimizer):
    """RMSProp, of Tieleman and Hinton, or centered, of Graves (arXiv:1308.0850). Weight decay is
    added to the gradient, before it is clipped.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        gamma1: Annotated[float, Option("", "decay of the running means")] = 0.9,
        gamma2: Annotated[float, Option("", "momentum; only used if `centered`")] = 0.9,
        epsilon: Annotated[float, Option("", "added inside the root")] = 1e-8,
        centered: Annotated[bool, Option("", "divide by the root of the variance, not of the mean square")] = False,
        clip_weights: Annotated[
            float | None, Option("", "weights are limited to [-clip_weights, clip_weights]; None and 0 mean no limit")
        ] = None,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        self.centered = centered  # decides which states there are
        super().__init__(learning_rate=learning_rate, **base)
        self.gamma1 = gamma1
        self.gamma2 = gamma2
        self.epsilon = epsilon
        self.clip_weights = clip_weights
        self.lazy_update = lazy_update

    @property
    def rule(self) -> Rule:
        return adaptive.rmsprop_centered if self.centered else adaptive.rmsprop

    def create_state(self, index: Index, weight: Array) -> State:
        """(mean square,), or (mean square, mean, velocity) if centered."""
        return tuple(self.new_state(name, weight) for name in self.rule.states)

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        bound = self.clip_weights if self.clip_weights and self.clip_weights > 0 else math.inf
        if self.centered:
            return lr, self.gamma1, self.gamma2, self.epsilon, bound
        return lr, self.gamma1, self.epsilon, bound


@register
class Ftrl(UnsignedRate):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/. A
    parameter whose learning rate is 0 is left alone; a negative one is refused.
    """

    rule: Rule = adaptive.ftrl

    def __init__(
        self,
        lamda1: Annotated[float, Option("", "L1 regularisation; `wd` is the L2 one")] = 0.01,
        learning_rate: Rate = 0.1,
        beta: Annotated[float, Option("", "smooths the rate of an element that has seen little")] = 1,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(**base)
        if learning_rate is not None:
            self.lr: Any = self._unsigned(learning_rate)
        self.lamda1 = lamda1
        self.beta = beta
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return self._unsigned(lr, index), self.lamda1, self.beta


@register
class Adafactor(RuleOptimizer):
    """Adafactor, https://arxiv.org/abs/1804.04235: of a matrix' second moment a row and a column of
    means are kept. `wd` is decoupled from the gradient, and scaled as steps are. A row-sparse
    gradient counts as a dense one. Not in MXNet.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        beta1: Annotated[float, Option("[0, 1)", "decay of the running mean of steps; with 0 none is kept")] = 0.0,
        decay_rate: Annotated[float, Option("(0, 1)", "step t keeps `1 - t ** -decay_rate` of the moment")] = 0.8,
        epsilon1: Annotated[float, Option("", "added to mean squares of gradients")] = 1e-30,
        epsilon2: Annotated[float, Option("", "least size, a root mean square, that a weight counts for")] = 1e-3,
        clip_threshold: Annotated[float, Option("", "root mean square that steps are scaled down to")] = 1.0,
        relative_step: Annotated[bool, Option("", "limit the rate of step t to `1 / sqrt(t)`")] = True,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        self.beta1 = beta1  # decides which states there are
        super().__init__(learning_rate=learning_rate, **base)
        self.decay_rate, self.relative_step = decay_rate, relative_step
        self.epsilon1, self.epsilon2, self.clip_threshold = epsilon1, epsilon2, clip_threshold

    @property
    def rule(self) -> Rule:
        return adafactor.adafactor_mean if self.beta1 else adafactor.adafactor

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        rate = min(lr, 1 / math.sqrt(t)) if self.relative_step else lr
        own = 1 - t ** -float(self.decay_rate), self.epsilon1, self.epsilon2, self.clip_threshold
        return (rate, *own, self.beta1) if self.beta1 else (rate, *own)
