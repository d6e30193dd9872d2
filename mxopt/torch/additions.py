"""PyTorch's optimizers that `experimental.optim`, which is MindSpore's, doesn't have: Adafactor and
SparseAdam."""

from __future__ import annotations

import math
from typing import Annotated, Any

import ml_dtypes
import numpy as np

from mxopt.errors import ArgumentError
from mxopt.experimental.optim.adam import bias_corrections
from mxopt.experimental.optim.groups import Options
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.options import Betas, Maximize, Number, OptimizerOptions, Params, Rate
from mxopt.optimizer.grouped import Slot, Step
from mxopt.options import Unpack
from mxopt.rules import adafactor, adam
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array


class Adafactor(Optimizer):
    """Adafactor, https://arxiv.org/abs/1804.04235: of a matrix' second moment a row and a column of
    means are kept.

    A step is relative to the parameter's root mean square, by `lr` at most.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        beta2_decay: Annotated[
            float, Number("(-inf, 0]", "step t gives the newest gradient the part `t ** beta2_decay` of the means")
        ] = -0.8,
        eps: Annotated[
            tuple[float | None, float],
            Number(
                "[0, inf)",
                "floor of the row means' mean and, squared, of the second moment, None for the dtype's resolution;"
                " and floor of a parameter's root mean square",
            ),
        ] = (None, 1e-3),
        d: Annotated[float, Number("[1, inf)", "root mean square that steps are scaled down to")] = 1.0,
        weight_decay: Annotated[float, Number("[0, inf)", "decoupled from the gradient")] = 0.0,
        *,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options, **base)

    def own(self, weight: Array) -> float:
        """The resolution of the dtype in which this weight is updated."""
        dtype = np.float32 if self.uses_master(weight) else weight.dtype
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]

    def rule(self, group: Options) -> Rule:
        return adafactor.adafactor_limited

    def scalars(self, at: Step) -> tuple[float, ...]:
        floor, smallest = at.group["eps"]
        floor = at.own if floor is None else floor
        rate, share = min(at.lr, 1 / math.sqrt(at.t)), at.t ** at.group["beta2_decay"]
        return rate, at.lr * at.wd, share, floor, floor * floor, smallest, at.group["d"]


class SparseAdam(Optimizer):
    """Adam, https://arxiv.org/abs/1412.6980, for the rows that a sparse gradient has. All other
    rows, and their states, stay as they are."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Annotated[float, Number("(0, inf)", "added to the root of the uncorrected mean square")] = 1e-8,
        maximize: Maximize = False,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, maximize=maximize)
        super().__init__(params, options, **base)

    def rule(self, group: Options) -> Rule:
        return adam.adam

    def rests(self, group: Options) -> bool:
        return True

    def scalars(self, at: Step) -> tuple[float, ...]:
        c1, root = bias_corrections(at)
        return at.lr * root / c1, 0.0, *at.group["betas"], at.group["eps"]

    def _prepare(
        self, slots: list[Slot], grads: list[Array], types: set[type], ats: list[Step], which: list[int]
    ) -> tuple[list[Any], list[Step], list[int]]:
        if types != {RowSparse}:
            slot = next(slot for slot, grad in zip(slots, grads, strict=True) if not isinstance(grad, RowSparse))
            raise ArgumentError(f"{slot.place} has a dense gradient, and SparseAdam takes sparse ones: 'adam' does")
        return super()._prepare(slots, grads, types, ats, which)
