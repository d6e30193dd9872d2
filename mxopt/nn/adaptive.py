"""Rates adapted to each element: Adadelta, Adagrad, ProximalAdagrad, RMSProp, FTRL.

`params`, `learning_rate`, `weight_decay` and `loss_scale` are `Optimizer`'s. All raise what it raises, and TypeError or
ValueError for an option of another type or out of range.
"""

from __future__ import annotations

import math
from typing import Any

from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.nn.checks import check_bools, check_floats
from mxopt.nn.ruled import Kind, RuleOptimizer
from mxopt.rules import adaptive, mindspore, pytorch

NOT_ZERO = 1e-30  # added to a root that could be 0 where the gradient is; no other root feels it


class Adadelta(RuleOptimizer):
    """AdaDelta, https://arxiv.org/abs/1212.5701, times a learning rate.

    Parameters
    ----------
    rho : float
        From 0 to 1: how much of the running mean squares stays.
    epsilon : float
        0 or more; added to both mean squares.
    """

    rule = pytorch.adadelta_l2

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 1.0,
        rho: float = 0.9,
        epsilon: float = 1e-6,
        loss_scale: float = 1.0,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        check_floats("Adadelta", "[0, 1]", rho=rho)
        check_floats("Adadelta", "[0, inf)", epsilon=epsilon)
        self.rho, self.epsilon = rho, epsilon
        self.keep(accum=0.0, accum_update=0.0)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, self.rho, self.epsilon


class Adagrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html: `accum += grad ** 2`, `param -= lr * grad / sqrt(accum)`.

    Parameters
    ----------
    accum : float
        0 or more; what the accumulator starts from.
    update_slots : bool
        Whether the accumulator grows.
    """

    def __init__(
        self,
        params: Any,
        accum: float = 0.1,
        learning_rate: Any = 1e-3,
        update_slots: bool = True,
        loss_scale: float = 1.0,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        check_floats("Adagrad", "[0, inf)", accum=accum)
        check_bools("Adagrad", update_slots=update_slots)
        self.update_slots = update_slots
        self.rule = pytorch.adagrad_l2 if update_slots else mindspore.adagrad_fixed
        self.keep(accum=accum)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, NOT_ZERO


class ProximalAdagrad(RuleOptimizer):
    """AdaGrad with L1 and L2 penalties by forward-backward splitting, https://papers.nips.cc/paper/3793.

    Leaves the rows alone for which a row-sparse gradient has none.

    Parameters
    ----------
    accum : float
        0 or more; what the accumulator starts from.
    l1, l2 : float
        0 or more; how strong the penalties are.
    use_locking : bool
        Without effect.
    """

    rule = mindspore.proximal_adagrad
    lazy = True

    def __init__(
        self,
        params: Any,
        accum: float = 0.1,
        learning_rate: Any = 1e-3,
        l1: float = 0.0,
        l2: float = 0.0,
        use_locking: bool = False,
        loss_scale: float = 1.0,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        check_floats("ProximalAdagrad", "[0, inf)", accum=accum, l1=l1, l2=l2)
        check_bools("ProximalAdagrad", use_locking=use_locking)
        self.l1, self.l2 = l1, l2
        self.keep(accum=accum)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, self.l1, self.l2, NOT_ZERO


class RMSProp(RuleOptimizer):
    """RMSProp, with momentum: steps over the root of a running mean square, which starts at 1.

    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Parameters
    ----------
    decay : float
        0 or more: how much of the mean square stays.
    momentum : float
        0 or more.
    epsilon : float
        Above 0; added under the root.
    use_locking : bool
        Without effect.
    centered : bool
        Divide by the standard deviation instead, https://arxiv.org/abs/1308.0850. The state `moment` then points
        downhill.
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.1,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        use_locking: bool = False,
        centered: bool = False,
        loss_scale: float = 1.0,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        check_floats("RMSProp", "[0, inf)", decay=decay, momentum=momentum)
        check_floats("RMSProp", "(0, inf)", epsilon=epsilon)
        check_bools("RMSProp", use_locking=use_locking, centered=centered)
        self.rho, self.momentum, self.epsilon, self.centered = decay, momentum, epsilon, centered
        if centered:
            self.rule = adaptive.rmsprop_centered
            self.keep(ms=1.0, mg=0.0, moment=0.0)
        elif momentum:
            self.rule = mindspore.rmsprop_momentum
            self.keep(ms=1.0, moment=0.0)
        else:
            self.rule = adaptive.rmsprop
            self.keep(ms=1.0)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        if self.centered:
            return lr, self.rho, self.momentum, self.epsilon, math.inf
        if self.momentum:
            return lr, self.rho, self.momentum, self.epsilon
        return lr, self.rho, self.epsilon, math.inf


class FTRL(RuleOptimizer):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/.

    Leaves the rows alone for which a row-sparse gradient has none. Decays parameters of every name.

    Parameters
    ----------
    initial_accum : float
        0 or more; what the sum of squares starts from.
    learning_rate : float
        Above 0; one for all parameters and steps.
    lr_power : float
        From -8 to 0: rates fall with the sum of squares to this power. The usual -0.5 is by far the fastest.
    l1, l2 : float
        0 or more; how strong the penalties are.
    use_locking : bool
        Without effect.
    """

    lazy = True
    undecayed = ()
    decay = "unknown to the rule"

    def __init__(
        self,
        params: Any,
        initial_accum: float = 0.1,
        learning_rate: float = 1e-3,
        lr_power: float = -0.5,
        l1: float = 0.0,
        l2: float = 0.0,
        use_locking: bool = False,
        loss_scale: float = 1.0,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        if self.dynamic_lr or self.is_group_lr:
            raise ArgumentError("FTRL: learning_rate must be one number for all parameters and steps")
        if isinstance(learning_rate, int):
            raise ArgumentTypeError(f"FTRL: learning_rate must be a float, got {learning_rate!r}")
        check_floats("FTRL", "(0, inf)", learning_rate=self._rates()[0])
        check_floats("FTRL", "[0, inf)", initial_accum=initial_accum, l1=l1, l2=l2)
        check_floats("FTRL", "(-8, 0]", lr_power=lr_power)
        check_bools("FTRL", use_locking=use_locking)
        self.l1, self.l2, self.lr_power = l1, l2, lr_power
        self.rule = adaptive.ftrl if lr_power == -0.5 else mindspore.ftrl_power
        self.keep(linear=0.0, moments=initial_accum)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, self.l1, 0.0 if self.lr_power == -0.5 else -self.lr_power

    def _row(self, kind: Kind, ready: bool) -> tuple[float, ...]:
        rate, _, *rest = super()._row(kind, ready)
        return (rate, 2 * self.l2, *rest)
