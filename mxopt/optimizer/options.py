"""The arguments that many optimizers share, and, for type checkers and editors, those that every
constructor hands on to `Optimizer`, which explains them: `**base: Unpack[OptimizerOptions]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from mxopt.optimizer.counts import Index, Schedule
from mxopt.options import Option
from mxopt.state_dtype import StateDtype

Rate = Annotated[float | None, Option("", "learning rate", kept="lr")]
Momentum = Annotated[float, Option("", "how much of the velocity stays; with 0 none is kept")]
Beta1 = Annotated[float, Option("[0, 1)", "decay of the running mean of the gradient")]
Beta2 = Annotated[float, Option("[0, 1)", "decay of the running mean of the gradient's square")]
Epsilon = Annotated[float, Option("", "keeps the division from 0")]
Lazy = Annotated[bool, Option("", "leave alone the rows that a row-sparse gradient lacks")]


class CommonOptions(TypedDict, total=False):
    """Handed on by every constructor."""

    rescale_grad: float
    param_idx2name: Mapping[int, str] | None
    wd: float
    clip_gradient: float | None
    lr_scheduler: Schedule | None
    sym: Any
    begin_num_update: int
    param_dict: Mapping[Index, Any] | None
    state_dtype: StateDtype


class OptimizerOptions(CommonOptions, total=False):
    """Handed on by constructors that name `learning_rate`."""

    multi_precision: bool
    seed: int | None


class OptionsAndRate(OptimizerOptions, total=False):
    """Handed on by constructors that don't."""

    learning_rate: float | None


class LBSGDOptions(CommonOptions, total=False):
    """Handed on by the one that names `multi_precision`."""

    learning_rate: float | None
    seed: int | None


class SGLDOptions(CommonOptions, total=False):
    """Handed on by the one that names `seed`."""

    learning_rate: float | None
    multi_precision: bool
