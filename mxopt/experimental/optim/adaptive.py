"""Adadelta, Adagrad, RMSprop and Rprop, as in `mindspore.experimental.optim` and `torch.optim`."""

from __future__ import annotations

from typing import Any, ClassVar

from mxopt.engine import arrays
from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options, Step
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.options import CHECKS, positive
from mxopt.rules import pytorch
from mxopt.rules.rule import Rule


class Adadelta(Optimizer):
    """Adadelta, https://arxiv.org/abs/1212.5701: steps as large as past steps, by the size of past gradients.

    Parameters
    ----------
    params : list of arrays or Parameters, or list of dict
        What to train, updated in place; see `Optimizer`.
    lr : float
        The step is multiplied by it.
    rho : float
        Decay of the running means, in [0, 1].
    eps : float
        Added inside both roots; above 0.
    weight_decay : float
        Times the parameter, added to the gradient.
    maximize : bool
        Climb instead of descending.
    multi_precision : bool
        Keep float32 master copies of float16 and bfloat16 parameters.
    lazy_update : bool
        Leave the rows alone for which a row-sparse gradient has none.
    """

    checks: ClassVar = {**CHECKS, "eps": positive}

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.adadelta_l2

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr, at.wd, at.group["rho"], at.group["eps"]


class Adagrad(Optimizer):
    """Adagrad, https://jmlr.org/papers/v12/duchi11a.html: by the root of the sum of all squared gradients.

    A row-sparse gradient costs its rows only, as long as there is no weight decay.

    Parameters
    ----------
    params, weight_decay, maximize, multi_precision, lazy_update
        As in `Adadelta`.
    lr : float
        Learning rate.
    lr_decay : float
        The rate of step t is `lr / (1 + (t - 1) * lr_decay)`.
    initial_accumulator_value : float
        Where the sums start. As in MindSpore, a group's own value has no effect.
    eps : float
        Added to the root.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        return pytorch.adagrad_l2

    def rests(self, group: Options) -> bool:
        return bool(group["weight_decay"] == 0)

    def new_state(self, name: str, weight: Any, group: Options) -> Any:
        state = arrays.zeros(weight.shape, weight)
        if self.defaults["initial_accumulator_value"]:
            state[...] = self.defaults["initial_accumulator_value"]
        return state

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr / (1 + (at.t - 1) * at.group["lr_decay"]), at.wd, at.group["eps"]


class RMSprop(Optimizer):
    """RMSprop, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf: by a running mean of squares.

    Parameters
    ----------
    params, weight_decay, maximize, multi_precision, lazy_update
        As in `Adadelta`.
    lr : float
        Learning rate.
    alpha : float
        Decay of the running means.
    eps : float
        Added to the root.
    momentum : float
        Of the steps.
    centered : bool
        Divide by the deviation instead of the root of the mean square.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        maximize: bool = False,
        *,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
            "centered": centered, "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)

    def rule(self, group: Options) -> Rule:
        if group["momentum"]:
            return pytorch.rmsprop_l2_centered_momentum if group["centered"] else pytorch.rmsprop_l2_momentum
        return pytorch.rmsprop_l2_centered if group["centered"] else pytorch.rmsprop_l2

    def scalars(self, at: Step) -> tuple[float, ...]:
        own = (at.lr, at.wd, at.group["alpha"], at.group["eps"])
        return (*own, at.group["momentum"]) if at.group["momentum"] else own


class Rprop(Optimizer):
    """Rprop, https://doi.org/10.1109/ICNN.1993.298623: by the gradient's sign, each element with a step of its own.

    Parameters
    ----------
    params, maximize, multi_precision, lazy_update
        As in `Adadelta`.
    lr : float
        The first step; read once, in a parameter's first update.
    etas : (float, float)
        A step is multiplied by the first when the sign changes, by the second when it stays: 0 < a < 1 < b;
        1 is allowed in groups, as in PyTorch.
    step_sizes : (float, float)
        The smallest and the biggest step.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
        multi_precision: bool = False,
        lazy_update: bool = False,
    ) -> None:
        options = {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize, "lazy_update": lazy_update,
        }  # fmt: skip
        super().__init__(params, options, multi_precision=multi_precision)
        if 1 in self.defaults["etas"]:
            raise ArgumentError(f"Rprop: etas must be a pair (a, b) with 0 < a < 1 < b, got {etas}")

    def rule(self, group: Options) -> Rule:
        return pytorch.rprop

    def new_state(self, name: str, weight: Any, group: Options) -> Any:
        state = arrays.zeros(weight.shape, weight)
        if name == "step_size":
            state[...] = group["lr"]
        return state

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr, at.wd, *at.group["etas"], *at.group["step_sizes"]
