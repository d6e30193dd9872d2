"""The options that these optimizers share. Types are exact, as MindSpore checks them: an int isn't
a float."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypedDict

import numpy as np

from mxopt.nn.learning_rate_schedule import LearningRateSchedule
from mxopt.options import Exact, Option
from mxopt.state_dtype import StateDtype
from mxopt.typing import AnyArray, Params as AnyParams

AnyRate = float | AnyArray | Iterable[float] | LearningRateSchedule
AnyDecay = float | np.floating[Any] | Callable[[Any], Any]

Params = Annotated[AnyParams, Option("", "what to train, in groups or not; see `Optimizer`")]
RateOption = Annotated[AnyRate, Option("", "a number, one for each step, or a schedule; see `Optimizer`")]
DecayOption = Annotated[AnyDecay, Option("", "a number of 0 or more, or a schedule; see `Optimizer`")]
Scale = Annotated[float | int, Exact("(0, inf)", "what the loss was multiplied by; gradients are divided by it")]
Beta1 = Annotated[float, Exact("(0, 1)", "how much of the running mean of the gradient stays")]
Beta2 = Annotated[float, Exact("(0, 1)", "how much of the running mean of its square stays")]
Epsilon = Annotated[float, Exact("(0, inf)", "added to the root of the corrected mean square")]
NoEffect = Annotated[bool, Exact("", "without effect")]
First = Annotated[float, Exact("[0, inf)", "what the sum of squares starts from")]
Penalty = Annotated[float, Exact("[0, inf)", "how strong the penalty is")]


class OptimizerOptions(TypedDict, total=False):
    """What every constructor hands on: `**base: Unpack[OptimizerOptions]`."""

    state_dtype: StateDtype
    seed: int | None


# The options of `Optimizer` itself.
Rates = Annotated[
    AnyRate,
    Option(
        "",
        "a number, one for each step (a list, an array of one axis), or a LearningRateSchedule, which is called"
        " with `global_step`",
    ),
]
Parameters = Annotated[
    AnyParams,
    Option(
        "",
        "a list of Parameters or float16, bfloat16, float32 or float64 arrays, updated in place. Or dicts, each"
        " a group: `params`, and as it likes `lr`, `weight_decay` and `grad_centralization`. A dict"
        ' `{"order_params": [...]}` gives the order of all of them',
    ),
]
Decays = Annotated[
    AnyDecay,
    Option(
        "",
        "a number of 0 or more, or a schedule. Outside of groups, parameters with 'beta' or 'gamma' in their"
        " names are not decayed",
    ),
]
