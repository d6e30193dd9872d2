"""The arguments that schedules share, and what is made for each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from mxopt.errors import ArgumentError, counted
from mxopt.options import Exact, Option
from mxopt.typing import AnyArray, HasGroups, HasRate

Scheduled = Annotated[HasGroups | HasRate, Option("", "the optimizer whose rates are set; see `LRScheduler`")]
LastEpoch = Annotated[int, Exact("[-1, inf)", "the number of the step to go on from; -1 to begin")]
Gamma = Annotated[float, Exact("", "what the rates are multiplied by")]
Share = Annotated[float, Option("[0, 1]", "what the rates are multiplied by")]
Whole = Annotated[int, Exact("", "how many steps")]
Floor = Annotated[float, Option("", "the least rate")]
Rates = Annotated[float | AnyArray | Sequence[float], Option("", "a number, or a list with one for each group")]
Functions = Annotated[
    Callable[[Any], Any] | Sequence[Any],
    Option(
        "",
        "a function of the step, or a list with one for each group. Functions are no part of `state_dict`",
    ),
]


def for_each_group(name: str, value: Any, groups: list[Any]) -> list[Any]:
    """`value` as a list with one item for each group."""
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) == 0:
        return [value] * len(groups)
    if len(value) != len(groups):
        raise ArgumentError(f"{name} has {counted(len(value), 'item')} for {counted(len(groups), 'group')}")
    return list(value)
