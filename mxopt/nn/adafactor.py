"""AdaFactor, which keeps a row and a column of a matrix's second moment."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from mxopt.errors import ArgumentError, ArrayError
from mxopt.nn.options import AnyDecay, AnyRate, NoEffect, OptimizerOptions, Params, Scale
from mxopt.nn.parameters import zeros
from mxopt.nn.ruled import RuleOptimizer, WeightDecay
from mxopt.optimizer.grouped import Slot
from mxopt.options import Exact, Option, Unpack, within
from mxopt.rules import adafactor
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array

MOMENT = "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq"


class AdaFactor(RuleOptimizer):
    """AdaFactor, https://arxiv.org/abs/1804.04235.

    Of a parameter with two axes or more the second moment is kept as its means over the last axis
    (`exp_avg_sq_row`) and over the one before (`exp_avg_sq_col`); of others whole (`exp_avg_sq`).
    Weight decay is decoupled, and acts on parameters of every name.

    Raises
    ------
    TypeError, ValueError, KeyError, RuntimeError
        See `Optimizer`; or an option is of a wrong type or out of range, or doesn't go with the
        others.
    """

    decay: ClassVar[WeightDecay] = "the rule's own"
    undecayed: ClassVar[tuple[str, ...]] = ()
    preparing: ClassVar[tuple[str, ...]] = ()  # MindSpore's step doesn't call these methods

    def __init__(
        self,
        params: Params,
        learning_rate: Annotated[AnyRate | None, Option("", "only without `relative_step`; see `Optimizer`")] = None,
        eps: Annotated[
            tuple[float, float] | list[float],
            Exact(
                "[0, inf)",
                "added to squared gradients; the least that a parameter's root mean square counts for",
            ),
        ] = (1e-30, 1e-3),
        clip_threshold: Annotated[float, Exact("[0, inf)", "updates are scaled down to this root mean square")] = 1.0,
        decay_rate: Annotated[float, Exact("(0, 1)", "step t keeps `1 - t ** -decay_rate` of the second moment")] = 0.8,
        beta1: Annotated[
            float | int,
            Exact("[0, inf)", "how much of the running mean of updates stays; with 0 there is none"),
        ] = 0.9,
        weight_decay: Annotated[AnyDecay, Option("", "a number below 1, or a schedule; see `Optimizer`")] = 0.0,
        scale_parameter: Annotated[
            bool, Exact("", "whether steps are relative to the parameter's root mean square")
        ] = True,
        relative_step: Annotated[bool, Exact("", "whether the learning rate is `min(0.01, 1 / sqrt(t))`")] = True,
        warmup_init: Annotated[bool, Exact("", "whether that is `min(1e-6 * t, 1 / sqrt(t))` instead")] = False,
        compression: NoEffect = False,
        loss_scale: Scale = 1.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        if relative_step and learning_rate is not None:
            raise ArgumentError("AdaFactor: learning_rate goes with relative_step=False only")
        if not relative_step and (warmup_init or learning_rate is None):
            raise ArgumentError("AdaFactor: relative_step=False needs a learning_rate, and no warmup_init")
        super().__init__(0.0 if learning_rate is None else learning_rate, params, weight_decay, loss_scale, **base)
        if not callable(weight_decay):
            within("AdaFactor: weight_decay", weight_decay, "[0, 1)")
        self.eps = eps
        self.clip_threshold = clip_threshold
        self.decay_rate = decay_rate
        self.beta1 = beta1
        self.scale_parameter = scale_parameter
        self.relative_step = relative_step
        self.warmup_init = warmup_init
        self.rule: Rule = adafactor.adafactor_mean if beta1 else adafactor.adafactor
        self.keep(*MOMENT, **({"exp_avg": 0.0} if beta1 else {}))

    def new_states(self, weight: Array, lr: float) -> tuple[Array, ...]:
        """The rule's states, then the second moment's row, column and whole, of one element each if
        it isn't needed."""
        shape = weight.shape
        shapes = (shape[:-1], shape[:-2] + shape[-1:], (1,)) if len(shape) > 1 else ((1,), (1,), shape)
        return (*super().new_states(weight, lr), *(zeros(s, weight) for s in shapes))

    def _states_of(self, slot: Slot, rule: Rule) -> tuple[tuple[Any, ...], Any]:
        row, column, whole = (slot.arrays[name] for name in MOMENT)
        axes = slot.weight.ndim
        if axes > 1 and isinstance(column, RowSparse):
            raise ArrayError(
                f"{slot.place}: AdaFactor keeps a state for each column, which a row-sparse value can't have: give"
                " x.asnumpy()"
            )
        moment = (row[..., None], column[..., None, :]) if axes > 1 else (whole, column if axes else column[0, ...])
        return (*moment, *(slot.arrays[name] for name in self.state_names if name not in MOMENT)), None

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        if self.relative_step:
            lr = min(1e-6 * t if self.warmup_init else 1e-2, 1 / math.sqrt(t))
        smallest = self.eps[1] if self.scale_parameter else math.nan
        row = (lr, 1 - t ** -float(self.decay_rate), self.eps[0], smallest, self.clip_threshold)
        return (*row, self.beta1) if self.beta1 else row
