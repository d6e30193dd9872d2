"""The options that these optimizers share."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypedDict

from mxopt.options import Declared, Exact, Option
from mxopt.state_dtype import StateDtype
from mxopt.typing import Params as AnyParams


class Number(Option):
    """Any number, but not True or False."""

    flags: ClassVar[bool] = False


Params = Annotated[
    AnyParams,
    Option("", "what to train, changed in place: a list of arrays or Parameters, or of dicts; see `Optimizer`"),
]
Rate = Annotated[float, Number("[0, inf)", "learning rate")]
Betas = Annotated[tuple[float, float], Number("[0, 1)", "decay of the running means of the gradient and of its square")]
Epsilon = Annotated[float, Number("[0, inf)", "added to the root of the corrected mean square")]
Decay = Annotated[float, Number("[0, inf)", "times the parameter, added to the gradient")]
Maximize = Annotated[bool, Exact("", "climb instead of descending")]
Lazy = Annotated[bool, Exact("", "leave alone the rows that a row-sparse gradient lacks")]
Masters = Annotated[bool, Option("", "keep a float32 master copy of float16 and bfloat16 parameters, and update that")]


class OptimizerOptions(TypedDict, total=False):
    """What every constructor hands on: `**base: Unpack[OptimizerOptions]`."""

    multi_precision: bool
    lazy_update: bool
    state_dtype: StateDtype
    seed: int | None


# Checked in every group, whatever its optimizer declares.
COMMON = {
    "lr": Declared(Rate),
    "initial_lr": Declared(Rate),
    "weight_decay": Declared(Decay),
    "maximize": Declared(Maximize),
    "lazy_update": Declared(Lazy),
}
