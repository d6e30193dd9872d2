"""Adam and its relatives, as in `mindspore.experimental.optim` and `torch.optim`.

Adam's step is `lr / c1 * mean / (sqrt(var / c2) + eps)` with the corrections `c = 1 - beta**t`.
Multiplying numerator and denominator by `sqrt(c2)` gives the rule `adam` with the rate `lr *
sqrt(c2) / c1` and the epsilon `eps * sqrt(c2)`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from mxopt.experimental.optim.groups import Options
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.options import Betas, Decay, Epsilon, Maximize, Number, OptimizerOptions, Params, Rate
from mxopt.optimizer.grouped import Step
from mxopt.optimizer.precision import corrections
from mxopt.options import Exact, Unpack
from mxopt.rules import adam, pytorch
from mxopt.rules.rule import Rule

Amsgrad = Annotated[bool, Exact("", "divide by the largest mean square so far")]


def bias_corrections(at: Step) -> tuple[float, float]:
    """1 - beta1^t, and the root of 1 - beta2^t."""
    beta1, beta2 = at.group["betas"]
    c1, c2 = corrections(at.real, beta1, beta2, at.t)
    return c1, math.sqrt(c2)


class Adam(Optimizer):
    """Adam, https://arxiv.org/abs/1412.6980, and AMSGrad,
    https://openreview.net/forum?id=ryQu7f-RZ."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: Decay = 0.0,
        amsgrad: Amsgrad = False,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.amsgrad if group["amsgrad"] else adam.adam

    def scalars(self, at: Step) -> tuple[float, ...]:
        c1, root = bias_corrections(at)
        own = (at.lr * root / c1, at.wd, *at.group["betas"], at.group["eps"] * root)
        return (*own, 0.0) if at.group["amsgrad"] else own


class AdamW(Adam):
    """Adam with decoupled weight decay, https://arxiv.org/abs/1711.05101.

    The step has `lr * weight_decay * parameter`.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: Annotated[float, Number("[0, inf)", "decoupled from the gradient")] = 1e-2,
        amsgrad: Amsgrad = False,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.amsgrad if group["amsgrad"] else adam.adamw

    def scalars(self, at: Step) -> tuple[float, ...]:
        c1, root = bias_corrections(at)
        rate, decay = at.lr * root / c1, at.wd * c1 / root  # the rules multiply one by the other
        own = (*at.group["betas"], at.group["eps"] * root)
        return (rate, 0.0, *own, decay) if at.group["amsgrad"] else (rate, decay, *own)


class Adamax(Optimizer):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7.

    Divides by the largest gradient so far, which decays, instead of the root of a mean square.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: Annotated[float, Number("[0, inf)", "added to the gradient's size")] = 1e-8,
        weight_decay: Decay = 0.0,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.adamax_epsilon

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr / bias_corrections(at)[0], at.wd, *at.group["betas"], at.group["eps"]


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ."""

    carried: ClassVar[str | None] = "mu_product"
    first_carry: ClassVar[float] = 1.0

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: Decay = 0.0,
        momentum_decay: Annotated[float, Number("[0, inf)", "how fast the momentum warms up")] = 4e-3,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=momentum_decay, maximize=maximize
        )
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return adam.nadam

    def scalars(self, at: Step) -> tuple[float, ...]:
        now, following = self._momentum(at.group, at.t), self._momentum(at.group, at.t + 1)
        product = at.carry * now
        mean_share, grad_share = following / (1 - product * following), (1 - now) / (1 - product)
        correction = bias_corrections(at)[1] ** 2
        beta1, beta2 = at.group["betas"]
        rest1, rest2 = corrections(at.real, beta1, beta2, 1)
        return at.lr, at.wd, beta1, rest1, beta2, rest2, at.group["eps"], mean_share, grad_share, correction

    def hand_on(self, at: Step) -> float:
        """The product of the momenta of all updates so far."""
        return at.carry * self._momentum(at.group, at.t)

    def _momentum(self, group: Options, t: int) -> float:
        return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])))


class RAdam(Optimizer):
    """RAdam, https://arxiv.org/abs/1908.03265: steps by the running mean alone until the variance
    can be trusted, then as Adam."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Annotated[float, Number("[0, inf)", "added to the root of the uncorrected mean square")] = 1e-8,
        weight_decay: Decay = 0.0,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.radam

    def scalars(self, at: Step) -> tuple[float, ...]:
        beta2 = at.group["betas"][1]
        c1, root = bias_corrections(at)
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * at.t * beta2**at.t / (1 - beta2**at.t)  # of the average of squares, in steps
        rate, rectified = at.lr / c1, length > 5
        if rectified:
            rate *= root * math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
        return rate, at.wd, *at.group["betas"], at.group["eps"], float(rectified)
