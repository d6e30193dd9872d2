"""Adam and its relatives."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Annotated, Any

import numpy as np

from mxopt.engine import Tensor
from mxopt.engine.steps import BatchPlan
from mxopt.optimizer.base import Index, register
from mxopt.optimizer.options import Beta1, Beta2, Epsilon, Lazy, OptimizerOptions, Rate
from mxopt.optimizer.precision import SPLIT, betas_in, corrections, told_from_one
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.unsigned import UnsignedRate
from mxopt.options import Option, Unpack
from mxopt.rules import adam
from mxopt.rules.rule import Rule

PRODUCTS = 1000  # that Nadam keeps


class _Moments(RuleOptimizer):
    """Keeps running means of the gradient (`beta1`) and of its square (`beta2`)."""

    def __init__(self, learning_rate: Rate, beta1: Beta1, beta2: Beta2, **base: Unpack[OptimizerOptions]) -> None:
        super().__init__(learning_rate=learning_rate, **base)
        self.beta1 = beta1
        self.beta2 = beta2

    def corrected(self, lr: float, t: int) -> float:
        """The learning rate times both bias corrections; in double, also of NumPy's numbers that
        were set later on, which `math.pow` sees to."""
        c1, c2 = 1 - math.pow(self.beta1, t), 1 - math.pow(self.beta2, t)
        if not (c1 and c2):
            raise told_from_one(self.beta1, self.beta2, float)
        return lr * math.sqrt(c2) / c1


class ArithmeticMoments(_Moments):
    """Computes 1 - beta^t in the precision of the weight's arithmetic, as MXNet's kernels of FTML
    and LAMB do."""

    _doubles: frozenset[Index] = frozenset()  # those whose weight was of float64 in their last call

    def __init__(self, learning_rate: Rate, beta1: Beta1, beta2: Beta2, **base: Unpack[OptimizerOptions]) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self._singles = (beta1, beta2, *betas_in(np.float32, beta1, beta2))  # the betas, and the same in float32

    def _tensors(self, indices: Sequence[Index], *arguments: Any) -> list[Tensor]:
        tensors = super()._tensors(indices, *arguments)
        pairs = zip(indices, tensors, strict=True)
        self._note(indices, {index for index, tensor in pairs if tensor.weight.dtype.itemsize == 8})
        return tensors

    def _apply(self, indices: tuple[Index, ...], calls: list[BatchPlan]) -> None:
        self._note(indices, {indices[batch[k] if batch else k] for batch, plan in calls for k in plan.doubles})
        super()._apply(indices, calls)

    def _note(self, indices: Sequence[Index], doubles: set[Index]) -> None:
        """Remembers which weights are of float64. A prepared update of a single tensor relies on
        that, so a change drops it."""
        if doubles or self._doubles:
            for index in doubles.symmetric_difference(self._doubles.intersection(indices)):
                self._plans.pop(index, None)
            self._doubles = self._doubles.difference(indices) | doubles

    def groups(self, indices: Sequence[Index]) -> Sequence[Hashable]:
        return [index in self._doubles for index in indices] if self._doubles else ()

    def corrections(self, index: Index, t: int) -> tuple[float, float]:
        """1 - beta1^t and 1 - beta2^t."""
        if self._doubles and index in self._doubles:
            return corrections(np.float64, float(self.beta1), float(self.beta2), t)
        beta1, beta2, a, b = self._singles
        if self.beta1 is not beta1 or self.beta2 is not beta2:  # they were changed
            a, b = betas_in(np.float32, float(self.beta1), float(self.beta2))
            self._singles = self.beta1, self.beta2, a, b
        a, b = a**t, b**t
        u, v = a * SPLIT, b * SPLIT
        a, b = 1 - (u - (u - a)), 1 - (v - (v - b))
        if not (a and b):
            raise told_from_one(beta1, beta2, np.float32)
        return a, b


@register
class Adam(_Moments):
    """Adam, arXiv:1412.6980, with `epsilon` beside the uncorrected root (end of the paper's section
    2). Weight decay is added to the gradient, before it is clipped.
    """

    rule: Rule = adam.adam

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-8,
        lazy_update: Lazy = True,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return self.corrected(lr, t), self.beta1, self.beta2, self.epsilon


class _BiasCorrected(_Moments):
    """The base of AdamW and AdaBelief, whose bias correction can be turned off."""

    inner_first = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-6,
        correct_bias: Annotated[bool, Option("", "False leaves the bias corrections out")] = True,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.correct_bias = correct_bias
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return self.corrected(lr, t) if self.correct_bias else lr, self.beta1, self.beta2, self.epsilon


@register
class AdamW(_BiasCorrected):
    """Adam with decoupled weight decay, arXiv:1711.05101, as in MXNet 2: `lr * wd * weight` with
    the corrected rate."""

    rule: Rule = adam.adamw


@register
class AdaBelief(_BiasCorrected):
    """AdaBelief, arXiv:2010.07468, as in MXNet 2: steps by the belief in the gradient. Weight decay
    is added to the gradient, before it is clipped.
    """

    rule: Rule = adam.adabelief


@register
class Adamax(_Moments):
    """AdaMax, arXiv:1412.6980 section 7. Weight decay is added to the gradient, before it is
    clipped."""

    rule: Rule = adam.adamax

    def __init__(
        self,
        learning_rate: Rate = 0.002,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        lazy_update: Lazy = False,
        epsilon: Annotated[
            float,
            Option(
                "",
                "added to the divisor. With 0, as in MXNet, an element whose gradients have all been 0 becomes NaN",
            ),
        ] = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        beta1 = float(self.beta1)
        return lr / (1 - beta1**t), beta1, 1 - beta1, self.beta2, self.epsilon


@register
class Nadam(_Moments):
    """Adam with Nesterov's momentum, https://cs229.stanford.edu/proj2015/054_report.pdf. Weight
    decay is added to the gradient, before it is clipped.

    The product of the momentum schedule is each parameter's own, as in the paper.
    """

    rule: Rule = adam.nadam

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-8,
        schedule_decay: Annotated[float, Option("", "how fast the momentum warms up")] = 0.004,
        lazy_update: Lazy = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.schedule_decay = schedule_decay
        self.lazy_update = lazy_update
        # An update, the product of the momentum schedule up to it, the schedule's next number, and
        # the options that these were computed with; then other products, by update.
        self._latest: tuple[Any, ...] = (self.begin_num_update, 1.0, 0.0, None, None)
        self._products: dict[int, float] = {}

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        beta1, beta2, decay = float(self.beta1), float(self.beta2), float(self.schedule_decay)
        update, product, now, of_beta1, of_decay = self._latest
        if update != t - 1 or of_beta1 is not beta1 or of_decay is not decay:
            now = self._momentum(t)
        following = self._momentum(t + 1)
        if update == t - 1:
            product *= now
        elif update != t:
            product = self._product(t)
        self._latest = (t, product, following, beta1, decay)
        mean_share, grad_share = following / (1 - product * following), (1 - now) / (1 - product)
        correction = 1 - beta2**t
        if not correction:
            raise told_from_one(beta1, beta2, float)
        return lr, beta1, 1 - beta1, beta2, 1 - beta2, self.epsilon, mean_share, grad_share, correction

    def _momentum(self, t: int) -> float:
        return float(self.beta1) * (1 - 0.5 * math.pow(0.96, t * float(self.schedule_decay)))

    def _product(self, t: int) -> float:
        """The product of the schedule up to update `t`, for parameters that are at different
        updates."""
        known = self._products
        if t not in known:
            product = known.get(t - 1)
            left = range(t if product is not None else self.begin_num_update + 1, t + 1)
            product = 1.0 if product is None else product
            for momentum in map(self._momentum, left):
                product *= momentum
                if 1 - product == 1:  # it only shrinks, so results no longer change
                    break
            if len(known) >= PRODUCTS:
                known.clear()
            known[t] = product
        return known[t]


@register
class FTML(ArithmeticMoments, UnsignedRate):
    """Follow the moving leader, https://proceedings.mlr.press/v70/zheng17a.html. A parameter whose
    learning rate is 0 is left alone; a negative one is refused.
    """

    rule: Rule = adam.ftml

    def __init__(
        self,
        beta1: Beta1 = 0.6,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-8,
        lazy_update: Lazy = False,
        learning_rate: Rate = None,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return self._unsigned(lr, index), self.beta1, self.beta2, self.epsilon, *self.corrections(index, t)
