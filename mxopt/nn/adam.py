"""Adam and its relatives: Adam, LazyAdam, AdamOffload, AdamWeightDecay, AdaMax."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np

from mxopt.errors import ArgumentError, ArgumentKeyError, MXOptError
from mxopt.nn.options import Beta1, Beta2, DecayOption, Epsilon, NoEffect, OptimizerOptions, Params, RateOption, Scale
from mxopt.nn.ruled import Own, RuleOptimizer, WeightDecay
from mxopt.optimizer.precision import corrections
from mxopt.options import Exact, Unpack
from mxopt.rules import adam, mindspore, pytorch
from mxopt.rules.rule import Rule
from mxopt.typing import Array

Nesterov = Annotated[bool, Exact("", "step by the mean that the next step would have if its gradient were the same")]


class Moments(RuleOptimizer):
    """The base of optimizers with two running means."""

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption,
        beta1: Beta1,
        beta2: Beta2,
        eps: Epsilon,
        weight_decay: DecayOption,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps

    def own(self, weight: Array) -> type[np.floating]:
        """The type of the parameter's arithmetic."""
        return np.float64 if weight.dtype.itemsize == 8 else np.float32

    def corrections(self, t: int, real: type[np.floating]) -> tuple[float, float]:
        """`1 - beta**t` for both betas."""
        return corrections(real, self.beta1, self.beta2, t)


class _Kinds(OptimizerOptions, total=False):
    use_lazy: Annotated[bool, Exact("", "see `LazyAdam`")]
    use_offload: NoEffect


class Adam(Moments):
    """Adam, https://arxiv.org/abs/1412.6980: steps by a running mean over the root of a running
    mean square.

    At most one of `use_amsgrad`, `use_lazy` and `use_offload` can be True; the last two are
    keywords only. `use_amsgrad` takes precedence over `use_nesterov`.
    """

    unknown: ClassVar[type[MXOptError]] = ArgumentKeyError  # as in MindSpore, for this class only

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1e-3,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Epsilon = 1e-8,
        use_locking: NoEffect = False,
        use_nesterov: Nesterov = False,
        weight_decay: DecayOption = 0.0,
        loss_scale: Scale = 1.0,
        use_amsgrad: Annotated[
            bool, Exact("", "divide by the largest mean square so far, https://openreview.net/forum?id=ryQu7f-RZ")
        ] = False,
        **kwargs: Unpack[_Kinds],
    ) -> None:
        base = OptimizerOptions(state_dtype=kwargs.get("state_dtype"), seed=kwargs.get("seed"))
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, loss_scale, **base)
        owner = type(self).__name__
        lazy, offload = kwargs.get("use_lazy", False), kwargs.get("use_offload", False)
        if lazy + offload + use_amsgrad > 1:
            raise ArgumentError(f"{owner}: only one of use_lazy, use_offload and use_amsgrad can be True")
        self.use_nesterov = use_nesterov
        self.use_amsgrad = use_amsgrad
        self.lazy = lazy
        if use_amsgrad:
            self.rule = pytorch.amsgrad
            self.keep(moment1=0.0, moment2=0.0, vhat=0.0)
        else:
            self.rule: Rule = adam.nadam if use_nesterov else adam.adam
            self.keep(moment1=0.0, moment2=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        correction1, correction2 = self.corrections(t, own)
        root = math.sqrt(correction2)
        if self.use_amsgrad:
            return lr * root / correction1, self.beta1, self.beta2, self._epsilon(root) * root, 0.0
        if self.use_nesterov:
            rest1, rest2 = self.corrections(1, own)
            betas = self.beta1, rest1, self.beta2, rest2
            return lr / correction1, *betas, self._epsilon(root), self.beta1, 1 - self.beta1, correction2
        return lr * root / correction1, self.beta1, self.beta2, self._epsilon(root) * root

    def _epsilon(self, root: float) -> float:
        """What is added to the root of the corrected mean square; `root` is the correction's
        root."""
        return self.eps


class LazyAdam(Adam):
    """Adam that leaves alone the rows that a row-sparse gradient lacks, and their running means."""

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1e-3,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Epsilon = 1e-8,
        use_locking: NoEffect = False,
        use_nesterov: Nesterov = False,
        weight_decay: Annotated[float, Exact("[0, inf)", "times the parameter, added to the gradient")] = 0.0,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = beta1, beta2, eps, use_locking, use_nesterov, weight_decay, loss_scale
        super().__init__(params, learning_rate, *options, use_lazy=True, **base)


class AdamOffload(Adam):
    """Adam whose `eps` is added to the root of the uncorrected mean square, as MindSpore documents
    it.

    Nothing is offloaded: arrays are updated where they are.
    """

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1e-3,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Epsilon = 1e-8,
        use_locking: NoEffect = False,
        use_nesterov: Nesterov = False,
        weight_decay: DecayOption = 0.0,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = beta1, beta2, eps, use_locking, use_nesterov, weight_decay, loss_scale
        super().__init__(params, learning_rate, *options, use_offload=True, **base)

    def _epsilon(self, root: float) -> float:
        return float(self.eps) / root


class AdamWeightDecay(Moments):
    """Adam with decoupled weight decay and no bias correction.

    `param -= lr * (m / (sqrt(v) + eps) + decay * param)`.
    """

    rule: Rule = adam.adamw
    decay: ClassVar[WeightDecay] = "the rule's own"

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1e-3,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Epsilon = 1e-6,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, **base)
        self.keep(moments1=0.0, moments2=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, self.beta1, self.beta2, self.eps


class AdaMax(Moments):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7: Adam that divides by the largest gradient
    so far, which decays."""

    rule: Rule = mindspore.adamax_apart

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1e-3,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Annotated[float, Exact("(0, inf)", "added to the largest gradient")] = 1e-8,
        weight_decay: DecayOption = 0.0,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, loss_scale, **base)
        self.keep(moment1=0.0, moment2=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr / self.corrections(t, own)[0], self.beta1, self.beta2, self.eps
