"""Adadelta, Adagrad, RMSprop and Rprop, as in `mindspore.experimental.optim` and `torch.optim`."""

from __future__ import annotations

from typing import Annotated

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.groups import Options
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.options import Decay, Maximize, Number, OptimizerOptions, Params, Rate
from mxopt.optimizer.grouped import Step
from mxopt.options import Exact, Unpack
from mxopt.rules import pytorch
from mxopt.rules.rule import Rule
from mxopt.typing import Array


class Adadelta(Optimizer):
    """Adadelta, https://arxiv.org/abs/1212.5701: scales gradients by the ratio of the sizes of past
    steps and past gradients."""

    def __init__(
        self,
        params: Params,
        lr: Annotated[float, Number("[0, inf)", "the step is multiplied by it")] = 1.0,
        rho: Annotated[float, Number("[0, 1]", "decay of the running means")] = 0.9,
        eps: Annotated[float, Number("(0, inf)", "added inside both roots")] = 1e-6,
        weight_decay: Decay = 0.0,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.adadelta_l2

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr, at.wd, at.group["rho"], at.group["eps"]


class Adagrad(Optimizer):
    """Adagrad, https://jmlr.org/papers/v12/duchi11a.html: divides by the root of the sum of all
    squared gradients.

    A row-sparse gradient costs its rows only, as long as there is no weight decay.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lr_decay: Annotated[float, Number("[0, inf)", "the rate of step t is `lr / (1 + (t - 1) * lr_decay)`")] = 0.0,
        weight_decay: Decay = 0.0,
        initial_accumulator_value: Annotated[
            float,
            Number("[0, inf)", "where the sums start. As in MindSpore, a group's own value has no effect"),
        ] = 0.0,
        eps: Annotated[float, Number("[0, inf)", "added to the root")] = 1e-10,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(
            lr=lr,
            lr_decay=lr_decay,
            eps=eps,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            maximize=maximize,
        )
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return pytorch.adagrad_l2

    def rests(self, group: Options) -> bool:
        return bool(group["weight_decay"] == 0)

    def new_state(self, name: str, weight: Array, group: Options) -> Array:
        state = super().new_state(name, weight, group)
        if self.defaults["initial_accumulator_value"]:
            state[...] = self.defaults["initial_accumulator_value"]
        return state

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr / (1 + (at.t - 1) * at.group["lr_decay"]), at.wd, at.group["eps"]


class RMSprop(Optimizer):
    """RMSprop: divides by the root of a running mean of squares.

    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        alpha: Annotated[float, Number("[0, inf)", "decay of the running means")] = 0.99,
        eps: Annotated[float, Number("[0, inf)", "added to the root")] = 1e-8,
        weight_decay: Decay = 0.0,
        momentum: Annotated[float, Number("[0, inf)", "of the steps")] = 0.0,
        centered: Annotated[bool, Exact("", "divide by the deviation instead of the root of the mean square")] = False,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        if group["momentum"]:
            return pytorch.rmsprop_l2_centered_momentum if group["centered"] else pytorch.rmsprop_l2_momentum
        return pytorch.rmsprop_l2_centered if group["centered"] else pytorch.rmsprop_l2

    def scalars(self, at: Step) -> tuple[float, ...]:
        own = (at.lr, at.wd, at.group["alpha"], at.group["eps"])
        return (*own, at.group["momentum"]) if at.group["momentum"] else own


class Rprop(Optimizer):
    """Rprop, https://doi.org/10.1109/ICNN.1993.298623: steps by the gradient's sign, with a step
    size for each element."""

    def __init__(
        self,
        params: Params,
        lr: Annotated[float, Number("[0, inf)", "the first step; read once, in a parameter's first update")] = 1e-2,
        etas: Annotated[
            tuple[float, float],
            Number(
                "(0, 1] [1, inf)",
                "a step is multiplied by the first when the sign changes, by the second when it stays; 1 only in"
                " groups, as in PyTorch",
            ),
        ] = (0.5, 1.2),
        step_sizes: Annotated[
            tuple[float, float], Number("[0, inf]", "the smallest and the biggest step", ascending=True)
        ] = (1e-6, 50),
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)
        super().__init__(params, options, **base)
        if 1 in self.defaults["etas"]:
            raise ArgumentError(f"Rprop: etas must be a pair (a, b) with 0 < a < 1 < b, got {etas}")

    def rule(self, group: Options) -> Rule:
        return pytorch.rprop

    def new_state(self, name: str, weight: Array, group: Options) -> Array:
        state = super().new_state(name, weight, group)
        if name == "step_size":
            state[...] = group["lr"]
        return state

    def scalars(self, at: Step) -> tuple[float, ...]:
        return at.lr, at.wd, *at.group["etas"], *at.group["step_sizes"]
