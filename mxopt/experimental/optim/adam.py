"""Adam and its relatives, as in `mindspore.experimental.optim` and `torch.optim`.

Adam's step is `lr / c1 * mean / (sqrt(var / c2) + eps)` with the corrections `c = 1 - beta**t`. Multiplied through by
`sqrt(c2)` that is the core's rule with the rate `lr * sqrt(c2) / c1` and the epsilon `eps * sqrt(c2)`.
"""

from __future__ import annotations

import math
from typing import Any

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options, Step
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.rules import adam, pytorch
from mxopt.rules.rule import Rule


def _corrections(at: Step) -> tuple[float, float]:
    """1 - beta1^t, and the root of 1 - beta2^t, of the betas as the arithmetic has them.

    In float32, 1 - 0.999 is 1.3e-5 off; with corrections that are off by as much, the steps come out right.
    """
    beta1, beta2 = at.group["betas"]
    beta1, beta2 = float(at.real(beta1)), float(at.real(beta2))
    if max(beta1, beta2) == 1:
        raise ArgumentError(f"betas {at.group['betas']} can't be told from 1 in {at.real.__name__}")
    return 1 - beta1**at.t, math.sqrt(1 - beta2**at.t)


class Adam(Optimizer):
    """Adam, https://arxiv.org/abs/1412.6980, and AMSGrad, https://openreview.net/forum?id=ryQu7f-RZ.

    Parameters
    ----------
    params : list of arrays or Parameters, or list of dict
        What to train, updated in place; see `Optimizer`.
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the running means of the gradient and of its square, in [0, 1).
    eps : float
        Added to the root of the corrected mean square.
    weight_decay : float
        Times the parameter, added to the gradient.
    amsgrad : bool
        Divide by the largest mean square so far.
    maximize : bool
        Climb instead of descending.
    multi_precision : bool
        Keep float32 master copies of float16 and bfloat16 parameters.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.amsgrad if group["amsgrad"] else adam.adam

    def scalars(self, at: Step) -> tuple[float, ...]:
        c1, root = _corrections(at)
        own = (at.lr * root / c1, at.wd, *at.group["betas"], at.group["eps"] * root)
        return (*own, 0.0) if at.group["amsgrad"] else own


class AdamW(Adam):
    """Adam with decoupled weight decay, https://arxiv.org/abs/1711.05101: the step has `lr * weight_decay * parameter`.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize, multi_precision, lazy_update
        As in `Adam`.
    weight_decay : float
        Decoupled from the gradient.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad,
            maximize=maximize, multi_precision=multi_precision, lazy_update=lazy_update,
        )  # fmt: skip

    def rule(self, group: Options) -> Rule:
        return pytorch.amsgrad if group["amsgrad"] else adam.adamw

    def scalars(self, at: Step) -> tuple[float, ...]:
        c1, root = _corrections(at)
        rate, decay = at.lr * root / c1, at.wd * c1 / root  # the rules multiply one by the other
        own = (*at.group["betas"], at.group["eps"] * root)
        return (rate, 0.0, *own, decay) if at.group["amsgrad"] else (rate, decay, *own)


class Adamax(Optimizer):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7: by the largest gradient, decayed, instead of the mean square.

    Parameters
    ----------
    params, lr, betas, weight_decay, maximize, multi_precision, lazy_update
        As in `Adam`.
    eps : float
        Added to the gradient's size.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.adamax_epsilon

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr / _corrections(at)[0], at.wd, *at.group["betas"], at.group["eps"]


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, maximize, multi_precision, lazy_update
        As in `Adam`.
    momentum_decay : float
        How fast the momentum warms up.
    """

    carried = "mu_product"
    first_carry = 1.0

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return adam.nadam

    def scalars(self, at: Step) -> tuple[float, ...]:
        now, following, product = self._momentum(at.group, at.t), self._momentum(at.group, at.t + 1), self.hand_on(at)
        mean_share, grad_share = following / (1 - product * following), (1 - now) / (1 - product)
        correction = _corrections(at)[1] ** 2
        beta1, beta2 = at.group["betas"]
        betas = beta1, 1 - float(at.real(beta1)), beta2, 1 - float(at.real(beta2))
        return at.lr, at.wd, *betas, at.group["eps"], mean_share, grad_share, correction

    def hand_on(self, at: Step) -> float:
        """The product of the momenta of all updates so far."""
        return at.carry * self._momentum(at.group, at.t)

    def _momentum(self, group: Options, t: int) -> float:
        return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])))


class RAdam(Optimizer):
    """RAdam, https://arxiv.org/abs/1908.03265: a running mean until the variance can be trusted, then Adam.

    Parameters
    ----------
    params, lr, betas, weight_decay, maximize, multi_precision, lazy_update
        As in `Adam`.
    eps : float
        Added to the root of the uncorrected mean square.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.radam

    def scalars(self, at: Step) -> tuple[float, ...]:
        beta2 = at.group["betas"][1]
        c1, root = _corrections(at)
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * at.t * beta2**at.t / (1 - beta2**at.t)  # of the average that the variance is, in steps
        rate, rectified = at.lr / c1, length > 5
        if rectified:
            rate *= root * math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
        return rate, at.wd, *at.group["betas"], at.group["eps"], float(rectified)
