"""What every optimizer's constructor takes beside its own arguments, for type checkers and editors.

Constructors hand these on as `**kwargs`. What they mean stands in `Optimizer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from mxopt.lr_scheduler import LRScheduler


class Options(TypedDict, total=False):
    """Those of constructors that name `learning_rate`."""

    rescale_grad: float
    param_idx2name: Mapping[int, str] | None
    wd: float
    clip_gradient: float | None
    lr_scheduler: LRScheduler | None
    sym: Any
    begin_num_update: int
    multi_precision: bool
    param_dict: Mapping[Any, Any] | None


class OptionsAndRate(Options, total=False):
    """Those of constructors that don't."""

    learning_rate: float | None
