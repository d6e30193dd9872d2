"""What an optimizer's states are stored in: its argument `state_dtype`, in all families."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from mxopt.caller import warn
from mxopt.engine import arrays
from mxopt.errors import ArgumentError, StatesError
from mxopt.options import Exact, Option
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Document, State

StateDtype = Literal["bfloat16", "float32"] | None
Stored = Annotated[
    StateDtype,
    Option(
        "",
        "what states are stored in; without it in the dtype of the weight, or of its master copy. 'bfloat16' halves"
        " them: they are rounded stochastically, and so is a bfloat16 weight without a master copy. Refused for float64"
        " weights, and where states need all their bits",
    ),
]
Seed = Annotated[
    int | None,
    Exact(
        "[0, 9223372036854775808)",
        "stochastic rounding is a function of it (without it of 0), of the parameter's key, of its update count and of"
        " the place in the array",
    ),
]
DTYPES: dict[str, np.dtype] = {"bfloat16": arrays.BFLOAT16, "float32": np.dtype(np.float32)}


def check(state_dtype: str | None, rule: Rule | None, owner: str) -> None:
    """Raises ArgumentError where the states of a rule can't be of this dtype; without a rule, where
    those of no rule can. Errors call the optimizer `owner`."""
    if state_dtype is None:
        return
    if state_dtype not in DTYPES:
        raise ArgumentError(f"{owner}: state_dtype must be None, {' or '.join(map(repr, DTYPES))}, got {state_dtype!r}")
    if state_dtype == "bfloat16" and rule is not None and rule.wide:
        names = ", ".join(rule.states)
        raise ArgumentError(f"{owner}: its states ({names}) can't be kept in bfloat16: {rule.wide}")


def without_rule(owner: str) -> ArgumentError:
    """What is raised where `owner` makes its steps by itself."""
    return ArgumentError(f"{owner}: state_dtype is for optimizers that are a rule")


def dtype_of(state_dtype: str | None, weight: Array) -> np.dtype | None:
    """The dtype of the states of a weight; None for the weight's own, which one of float64 always
    has."""
    return None if state_dtype is None or weight.dtype.itemsize == 8 else DTYPES[state_dtype]


def warn_of_nearest(weight: Array, state_dtype: str | None) -> None:
    """Warns of a bfloat16 weight, which has no master copy, if it is rounded to nearest."""
    if weight.dtype == arrays.BFLOAT16 and state_dtype != "bfloat16":
        warn(
            "bfloat16 weights without a master copy lose accuracy: they are rounded to nearest at every update, where"
            " small steps are lost; state_dtype='bfloat16' rounds stochastically"
        )


def converted(state: State, like: Array) -> State:
    """A state whose arrays have the dtypes of those of `like`, as far as these are ones that
    `state_dtype` can ask for; to nearest, where bits are lost. What is as it should be stays the
    same object."""
    if isinstance(state, tuple | list):
        if not isinstance(like, tuple | list) or len(like) != len(state):
            return state
        return type(state)(map(converted, state, like))
    return as_stored(state, getattr(like, "dtype", None))


def as_stored(array: Array, dtype: np.dtype | None) -> Array:
    """An array in another of the dtypes that `state_dtype` can ask for; anything else, and into
    anything else, as it is."""
    if {arrays.DTYPES.get(getattr(array, "dtype", None)), arrays.DTYPES.get(dtype)} != DTYPES.keys():
        return array
    if isinstance(array, RowSparse):
        return RowSparse(array.data.astype(dtype), array.indices, array.shape)
    return array.astype(dtype)


def seed_of(document: Document, otherwise: int | None) -> int | None:
    """The seed that a document gives. Raises StatesError where it is none."""
    seed = document.get("seed", otherwise)
    if not isinstance(seed, int | None):
        raise StatesError(f"a seed is a whole number, not {seed!r:.80}")
    return seed
