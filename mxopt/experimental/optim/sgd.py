"""Gradient descent, as in `mindspore.experimental.optim` and `torch.optim`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.options import Decay, Maximize, Number, OptimizerOptions, Params, Rate
from mxopt.optimizer.grouped import Step
from mxopt.options import Exact, Unpack
from mxopt.rules import pytorch, sgd
from mxopt.rules.rule import Rule


class SGD(Optimizer):
    """Gradient descent, plain, with momentum, or with Nesterov's
    (https://proceedings.mlr.press/v28/sutskever13.html).

    The learning rate is applied to the velocity, not kept in it. Without momentum and weight decay
    a row-sparse gradient costs its rows only.

    >>> import numpy as np
    >>> weight = np.ones(2, np.float32)
    >>> optimizer = SGD([weight], lr=0.5)
    >>> optimizer((np.array([1, 2], np.float32),))
    >>> weight
    array([0.5, 0. ], dtype=float32)
    """

    def __init__(
        self,
        params: Params,
        lr: Rate,
        momentum: Annotated[float, Number("[0, inf)", "how much of the velocity stays")] = 0,
        dampening: Annotated[
            float,
            Number("", "the gradient enters the velocity times `1 - dampening`, but for a parameter's first update"),
        ] = 0,
        weight_decay: Decay = 0.0,
        nesterov: Annotated[
            bool,
            Exact(
                "",
                "needs a momentum and no dampening here. A group may have them otherwise, and takes plain steps"
                " without momentum",
            ),
        ] = False,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        super().__init__(params, options, **base)
        if nesterov and (momentum <= 0 or dampening != 0):  # groups aren't checked: without momentum it has no effect
            raise ArgumentError(
                "SGD: nesterov needs a momentum above 0 and no dampening,"
                f" got momentum={momentum}, dampening={dampening}"
            )

    def rule(self, group: Options) -> Rule:
        if not group["momentum"]:
            return sgd.sgd
        return pytorch.nesterov if group["nesterov"] else pytorch.heavy_ball

    def rests(self, group: Options) -> bool:
        return not group["momentum"] and not group["weight_decay"]

    def scalars(self, at: Step) -> tuple[float, ...]:
        if not at.group["momentum"]:
            return at.lr, at.wd
        return at.lr, at.wd, at.group["momentum"], 1.0 if at.t == 1 else 1 - at.group["dampening"]


class ASGD(Optimizer):
    """Averaged gradient descent, https://doi.org/10.1137/0330046. The average is the state
    `average`.

    Step t uses the rate that the step before computed from its `lr`: `lr / (1 + lambd * lr * (t -
    1))**alpha`.
    """

    carried: ClassVar[str | None] = "eta"

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lambd: Annotated[float, Exact("", "decay of the parameter, `lambd * rate * parameter`")] = 1e-4,
        alpha: Annotated[float, Number("[0, inf)", "how fast the rate falls")] = 0.75,
        t0: Annotated[float, Exact("", "the step after which the average begins")] = 1e6,
        weight_decay: Decay = 0.0,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.asgd

    def scalars(self, at: Step) -> tuple[float, ...]:
        rate = at.lr if at.t == 1 else at.carry
        return rate, at.wd + float(at.group["lambd"]), 1 / max(1.0, at.t - 1 - float(at.group["t0"]))

    def hand_on(self, at: Step) -> float:
        """The rate of the next step."""
        return float(at.lr / (1 + float(at.group["lambd"]) * at.lr * at.t) ** float(at.group["alpha"]))
