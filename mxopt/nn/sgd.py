"""Gradient descent with momentum, averaged, and by sign: SGD, Momentum, ASGD, Rprop."""

from __future__ import annotations

from typing import Annotated, ClassVar

from mxopt.errors import ArgumentError, ArgumentTypeError
from mxopt.nn.options import DecayOption, OptimizerOptions, Params, RateOption, Scale
from mxopt.nn.ruled import Own, RuleOptimizer, WeightDecay
from mxopt.optimizer.grouped import Step
from mxopt.options import Exact, Unpack
from mxopt.rules import pytorch, sgd
from mxopt.rules.rule import Rule
from mxopt.typing import Gradients


class SGD(RuleOptimizer):
    """Stochastic gradient descent: `v = momentum * v + (1 - dampening) * grad`, then `param -= lr *
    v`.

    The first step takes `v = grad`. With `nesterov` it is `param -= lr * (grad + momentum * v)`.
    """

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 0.1,
        momentum: Annotated[float | int, Exact("[0, inf)", "how much of the velocity stays")] = 0.0,
        dampening: Annotated[float | int, Exact("[0, inf)", "none without momentum, as in MindSpore")] = 0.0,
        weight_decay: DecayOption = 0.0,
        nesterov: Annotated[bool, Exact("", "needs momentum and no dampening")] = False,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        if self.dynamic_weight_decay:
            raise ArgumentTypeError("SGD: weight_decay must be a number, in groups too, got a schedule")
        if nesterov and (momentum == 0 or dampening != 0):
            raise ArgumentError(f"SGD: nesterov needs momentum ({momentum}) above 0 and dampening ({dampening}) of 0")
        self.momentum: float = float(momentum)
        self.dampening: float = float(dampening)
        self.nesterov = nesterov
        if not momentum:
            self.rule = sgd.sgd
            self.keep()
        else:
            self.rule: Rule = pytorch.nesterov if nesterov else pytorch.heavy_ball
            self.keep(accum=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        if not self.momentum:
            return (lr,)
        return lr, self.momentum, 1.0 if t == 1 else 1 - self.dampening


class Momentum(RuleOptimizer):
    """`v = momentum * v + grad`, then `param -= lr * v`; with `use_nesterov` `param -= lr * (grad +
    momentum * v)`."""

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption,
        momentum: Annotated[float, Exact("[0, inf)", "how much of the velocity stays")],
        weight_decay: DecayOption = 0.0,
        loss_scale: Scale = 1.0,
        use_nesterov: Annotated[bool, Exact("", "step by the velocity to come")] = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale, **base)
        self.momentum = momentum
        self.use_nesterov = use_nesterov
        self.rule: Rule = pytorch.nesterov if use_nesterov else pytorch.heavy_ball
        self.keep(moments=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr, self.momentum, 1.0


class ASGD(RuleOptimizer):
    """Averaged descent, https://doi.org/10.1137/0330046: `param -= eta * (grad + lambd * param)`;
    `ax` is the parameter's average after step `t0`.

    `eta` is the learning rate at first, and after step t `lr / (1 + lambd * lr * t) ** alpha`: a
    changed rate takes effect one step later, as in MindSpore and PyTorch.
    """

    rule: Rule = pytorch.asgd
    carried: ClassVar[str | None] = "eta"
    first_carry: ClassVar[float] = -1.0  # before the first step

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 0.1,
        lambd: Annotated[float, Exact("", "decay of the parameter")] = 1e-4,
        alpha: Annotated[float, Exact("", "how fast the rate falls")] = 0.75,
        t0: Annotated[float, Exact("", "the step after which the average begins")] = 1e6,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, **base)
        self.lambd = lambd
        self.alpha = alpha
        self.t0 = t0
        self.keep(ax=0.0)

    @property
    def eta(self) -> list[float]:
        """The rate of the next step, for each parameter."""
        pairs = zip(self._slots, self._rates(), strict=True)
        return [rate if slot.carry < 0 else slot.carry for slot, rate in pairs]

    def hand_on(self, at: Step) -> float:
        """`eta` of the next step."""
        return float(at.lr / (1 + float(self.lambd) * at.lr * at.t) ** float(self.alpha))

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return lr if own < 0 else own, 1 / max(1.0, t - 1 - float(self.t0))

    def _hypers(self, at: Step) -> tuple[float, ...]:
        rate, wd, *rest = super()._hypers(at)
        return (rate, wd + float(self.lambd), *rest)


class Rprop(RuleOptimizer):
    """Steps by the sign of the gradient, https://doi.org/10.1109/ICNN.1993.298623: an element's
    step size grows while the sign stays and shrinks when it changes.

    Step sizes start at the learning rate of the first step, which has no effect afterwards.
    """

    rule: Rule = pytorch.rprop
    decay: ClassVar[WeightDecay] = "unknown to the rule"

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption = 0.1,
        etas: Annotated[
            tuple[float, float],
            Exact("(0, 1) (1, inf)", "factors of a step size when the sign changes, and when it stays"),
        ] = (0.5, 1.2),
        step_sizes: Annotated[tuple[float, float], Exact("", "the least and the largest size", ascending=True)] = (
            1e-6,
            50.0,
        ),
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, **base)
        self.etas = etas
        self.step_sizes = step_sizes
        self.keep(prev=0.0, step_size=float)

    def construct(self, gradients: Gradients) -> bool:
        if not self.global_step:  # the rate may have changed since the constructor used it
            for slot, rate in zip(self._slots, self.step_rates(), strict=True):
                slot.arrays["step_size"][...] = rate
        return super().construct(gradients)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        return (lr, *self.etas, *self.step_sizes)
