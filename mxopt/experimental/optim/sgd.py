"""Gradient descent, as in `mindspore.experimental.optim` and `torch.optim`."""

from __future__ import annotations

from typing import Any

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options, Step
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.rules import pytorch, sgd
from mxopt.rules.rule import Rule


class SGD(Optimizer):
    """Gradient descent, plain, with momentum, or with Nesterov's (https://proceedings.mlr.press/v28/sutskever13.html).

    Without momentum and weight decay a row-sparse gradient costs its rows only.

    Parameters
    ----------
    params : list of arrays or Parameters, or list of dict
        What to train, updated in place; see `Optimizer`.
    lr : float
        Learning rate; applied to the velocity, not kept in it.
    momentum : float
        How much of the velocity stays.
    dampening : float
        The gradient enters the velocity times `1 - dampening`, but for a parameter's first update.
    weight_decay : float
        Times the parameter, added to the gradient.
    nesterov : bool
        Needs a momentum and no dampening here. A group may have them otherwise, and takes plain steps without momentum.
    maximize : bool
        Climb instead of descending.
    multi_precision : bool
        Keep float32 master copies of float16 and bfloat16 parameters.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.

    >>> import numpy as np
    >>> weight = np.ones(2, np.float32)
    >>> optimizer = SGD([weight], lr=0.5)
    >>> optimizer((np.array([1, 2], np.float32),))
    >>> weight
    array([0.5, 0. ], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)
        if nesterov and (momentum <= 0 or dampening != 0):  # groups may differ: without momentum there is none to add
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
    """Averaged gradient descent, https://doi.org/10.1137/0330046. The average is the state `average`.

    Step t uses the rate that the step before prepared, `lr / (1 + lambd * lr * (t - 1))**alpha` with the `lr` of then.

    Parameters
    ----------
    params, weight_decay, maximize, multi_precision, lazy_update
        As in `SGD`.
    lr : float
        Learning rate.
    lambd : float
        Decay of the parameter, `lambd * rate * parameter`; a float and no int.
    alpha : float
        How fast the rate falls.
    t0 : float
        The step after which the average begins; a float and no int.
    """

    carried = "eta"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        maximize: bool = False,
        *,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.asgd

    def scalars(self, at: Step) -> tuple[float, ...]:
        rate = at.lr if at.t == 1 else at.carry
        return rate, at.wd + at.group["lambd"], 1 / max(1.0, at.t - 1 - at.group["t0"])

    def hand_on(self, at: Step) -> float:
        """The rate of the next step."""
        return float(at.lr / (1 + at.group["lambd"] * at.lr * at.t) ** at.group["alpha"])
