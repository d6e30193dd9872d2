"""What an optimizer's states are stored in: its argument `state_dtype`, in all families."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArgumentError, ArrayTypeError
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse

StateDtype = Literal["bfloat16", "float32"] | None
says_of_state_dtype = (
    "what states are stored in; without it in the dtype of the weight, or of its master copy. 'bfloat16' halves them:"
    " they are rounded stochastically, and so is a bfloat16 weight without a master copy. Refused for float64 weights,"
    " and where states need all their bits"
)
says_of_seed = (
    "stochastic rounding is a function of it, of the parameter's key, of its update count and of the place in the"
    " array; without it one is drawn"
)
DTYPES: dict[str, np.dtype] = {"bfloat16": arrays.BFLOAT16, "float32": np.dtype(np.float32)}


def check(state_dtype: str | None, rule: Rule | None, owner: str) -> None:
    """Raises ArgumentError where the states of a rule can't be of this dtype; without a rule, where none can. Errors
    call the optimizer `owner`."""
    if state_dtype is None:
        return
    if state_dtype not in DTYPES:
        raise ArgumentError(f"{owner}: state_dtype must be None, {' or '.join(map(repr, DTYPES))}, got {state_dtype!r}")
    if state_dtype == "bfloat16" and rule is not None and rule.wide:
        names = ", ".join(rule.states)
        raise ArgumentError(f"{owner}: its states ({names}) can't be kept in bfloat16: {rule.wide}")


def dtype_of(state_dtype: str | None, weight: Any, what: str) -> np.dtype | None:
    """The dtype of the state `what` of a weight; None for the weight's own. Raises ArrayTypeError for a float64 one."""
    if state_dtype is None:
        return None
    if weight.dtype.itemsize == 8:
        raise ArrayTypeError(
            f"a float64 weight can't have {what} of {state_dtype}: its states are of float64; leave state_dtype out"
        )
    return DTYPES[state_dtype]


def converted(state: Any, like: Any) -> Any:
    """A state whose arrays have the dtypes of those of `like`, as far as these are ones that `state_dtype` can ask for;
    to nearest, where bits are lost. What is as it should be stays the same object."""
    if isinstance(state, tuple | list):
        if not isinstance(like, tuple | list) or len(like) != len(state):
            return state
        return type(state)(map(converted, state, like))
    known = {arrays.DTYPES.get(getattr(x, "dtype", None)) for x in (state, like)}
    if known != DTYPES.keys():
        return state
    if isinstance(state, RowSparse):
        return RowSparse(state.data.astype(like.dtype), state.indices, state.shape)
    return state.astype(like.dtype)


def drawn_seed() -> int:
    """A new seed, 0 or more."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
