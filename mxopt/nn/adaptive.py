"""Rates adapted to each element: Adadelta, Adagrad, ProximalAdagrad, RMSProp, FTRL."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.nn.options import AnyRate, DecayOption, First, NoEffect, OptimizerOptions, Params, Penalty, RateOption, Scale
from mxopt.nn.ruled import Own, RuleOptimizer, WeightDecay
from mxopt.optimizer.grouped import Step
from mxopt.options import Exact, Option, Unpack, within
from mxopt.rules import adaptive, mindspore, pytorch
from mxopt.rules.rule import Rule

NOT_ZERO = 1e-30  # added to a root that may be 0; any other root stays the same


class Adadelta(RuleOptimizer):
    """AdaDelta, https://arxiv.org/abs/1212.5701, with its steps multiplied by a learning rate."""

    rule: Rule = pytorch.adadelta_l2

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 1.0,
        rho: Annotated[float, Exact("[0, 1]", "how much of the running mean squares stays")] = 0.9,
        epsilon: Annotated[float, Exact("[0, inf)", "added to both mean squares")] = 1e-6,
        loss_scale: Scale = 1.0,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.rho = rho
        self.epsilon = epsilon
        self.keep(accum=0.0, accum_update=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, self.rho, self.epsilon


class Adagrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html: `accum += grad ** 2`, `param -= lr * grad
    / sqrt(accum)`."""

    def __init__(
        self,
        params: Params,
        accum: First = 0.1,
        learning_rate: RateOption = 1e-3,
        update_slots: Annotated[bool, Exact("", "whether the sum of squares grows")] = True,
        loss_scale: Scale = 1.0,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.update_slots = update_slots
        self.rule: Rule = pytorch.adagrad_l2 if update_slots else mindspore.adagrad_fixed
        self.keep(accum=accum)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, NOT_ZERO


class ProximalAdagrad(RuleOptimizer):
    """AdaGrad with L1 and L2 penalties by forward-backward splitting,
    https://papers.nips.cc/paper/3793.

    Leaves alone the rows that a row-sparse gradient lacks.
    """

    rule: Rule = mindspore.proximal_adagrad
    lazy = True

    def __init__(
        self,
        params: Params,
        accum: First = 0.1,
        learning_rate: RateOption = 1e-3,
        l1: Penalty = 0.0,
        l2: Penalty = 0.0,
        use_locking: NoEffect = False,
        loss_scale: Scale = 1.0,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.l1 = l1
        self.l2 = l2
        self.keep(accum=accum)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, self.l1, self.l2, NOT_ZERO


class RMSProp(RuleOptimizer):
    """RMSProp, with momentum: divides by the root of a running mean square, which starts at 1.

    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
    """

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 0.1,
        decay: Annotated[float, Exact("[0, inf)", "how much of the mean square stays", kept="rho")] = 0.9,
        momentum: Annotated[float, Exact("[0, inf)", "how much of the step before is in a step")] = 0.0,
        epsilon: Annotated[float, Exact("(0, inf)", "added under the root")] = 1e-10,
        use_locking: NoEffect = False,
        centered: Annotated[
            bool,
            Exact(
                "",
                "divide by the standard deviation instead, https://arxiv.org/abs/1308.0850. The state `moment` then"
                " points downhill",
            ),
        ] = False,
        loss_scale: Scale = 1.0,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.rho = decay
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        if centered:
            self.rule = adaptive.rmsprop_centered
            self.keep(ms=1.0, mg=0.0, moment=0.0)
        elif momentum:
            self.rule = mindspore.rmsprop_momentum
            self.keep(ms=1.0, moment=0.0)
        else:
            self.rule: Rule = adaptive.rmsprop
            self.keep(ms=1.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        if self.centered:
            return lr, self.rho, self.momentum, self.epsilon, math.inf
        if self.momentum:
            return lr, self.rho, self.momentum, self.epsilon
        return lr, self.rho, self.epsilon, math.inf


class FTRL(RuleOptimizer):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/.

    Leaves alone the rows that a row-sparse gradient lacks. Decays parameters of every name.
    """

    lazy = True
    undecayed: ClassVar[tuple[str, ...]] = ()
    decay: ClassVar[WeightDecay] = "unknown to the rule"

    def __init__(
        self,
        params: Params,
        initial_accum: First = 0.1,
        learning_rate: Annotated[AnyRate, Option("", "above 0, one for all parameters and steps")] = 1e-3,
        lr_power: Annotated[
            float,
            Exact("(-8, 0]", "rates fall with the sum of squares to this power. The usual -0.5 is by far the fastest"),
        ] = -0.5,
        l1: Penalty = 0.0,
        l2: Penalty = 0.0,
        use_locking: NoEffect = False,
        loss_scale: Scale = 1.0,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        if self.dynamic_lr or self.is_group_lr:
            raise ArgumentError("FTRL: learning_rate must be one number for all parameters and steps")
        if isinstance(learning_rate, int):
            raise ArgumentTypeError(f"FTRL: learning_rate must be a float, got {learning_rate!r}")
        within("FTRL: learning_rate", self._rates()[0], "(0, inf)")
        self.l1 = l1
        self.l2 = l2
        self.lr_power = lr_power
        self.rule: Rule = adaptive.ftrl if lr_power == -0.5 else mindspore.ftrl_power
        self.keep(linear=0.0, moments=initial_accum)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, self.l1, 0.0 if self.lr_power == -0.5 else -self.lr_power

    def _hypers(self, at: Step) -> tuple[float, ...]:
        rate, _, *rest = super()._hypers(at)
        return (rate, 2 * self.l2, *rest)
