"""The dtype of an optimizer's states: the argument `state_dtype` of all families."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from mxopt.caller import warn
from mxopt.engine import arrays
from mxopt.engine.rounding import SEEDS
from mxopt.errors import ArgumentError, StatesError
from mxopt.options import Exact, Option
from mxopt.rules.rule import Rule
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
        f"[0, {SEEDS})",
        "stochastic rounding is a function of it (without it of 0), of the parameter's key, of its update count and of"
        " the place in the array",
    ),
]
DTYPES: dict[str, np.dtype] = {"bfloat16": arrays.BFLOAT16, "float32": np.dtype(np.float32)}


class StoredStates:
    """What an optimizer's states are stored in, which may be set later too."""

    _state_dtype: StateDtype = None

    @property
    def state_dtype(self) -> StateDtype:
        """What states are stored in, as the argument. States that there are already aren't
        converted: the next update refuses them if it is set to another."""
        return self._state_dtype

    @state_dtype.setter
    def state_dtype(self, asked: StateDtype) -> None:
        if asked is not None:
            self.check_state_dtype(asked)
        self._state_dtype = asked
        self._prepare_anew()

    def check_state_dtype(self, asked: str) -> None:
        """Raises ArgumentError if states can't be of this dtype."""
        raise without_rule(type(self).__name__)

    def _prepare_anew(self) -> None:
        """Forgets what is prepared for later updates, which is for the dtype before."""


def check(state_dtype: str | None, rule: Rule | None, owner: str) -> None:
    """Raises ArgumentError if the states of a rule can't be of this dtype; without a rule, if no
    rule's can. Errors call the optimizer `owner`."""
    if state_dtype is None:
        return
    if not isinstance(state_dtype, str) or state_dtype not in DTYPES:
        raise ArgumentError(f"{owner}: state_dtype must be None, {' or '.join(map(repr, DTYPES))}, got {state_dtype!r}")
    if state_dtype == "bfloat16" and rule is not None and rule.wide:
        names = ", ".join(rule.states)
        raise ArgumentError(f"{owner}: its states ({names}) can't be kept in bfloat16: {rule.wide}")


def without_rule(owner: str) -> ArgumentError:
    """The error for an optimizer `owner` that has no rule."""
    return ArgumentError(f"{owner}: state_dtype is for optimizers that are a rule")


def dtype_of(state_dtype: str | None, weight: Array) -> np.dtype | None:
    """The dtype of a weight's states; None for the weight's own, as always for float64."""
    return None if state_dtype is None or weight.dtype.itemsize == 8 else DTYPES[state_dtype]


def warn_of_nearest(weight: Array, state_dtype: str | None) -> None:
    """Warns if a bfloat16 weight without a master copy is rounded to nearest."""
    if weight.dtype == arrays.BFLOAT16 and state_dtype != "bfloat16":
        warn(
            "bfloat16 weights without a master copy lose accuracy: they are rounded to nearest at every update, where"
            " small steps are lost; state_dtype='bfloat16' rounds stochastically"
        )


def converted(state: State, like: Array) -> State:
    """A state with its arrays in the dtypes of those of `like`, if both are dtypes of
    `state_dtype`; rounded to nearest. Arrays that fit already stay the same objects."""
    if isinstance(state, tuple | list):
        if not isinstance(like, tuple | list) or len(like) != len(state):
            return state
        return type(state)(map(converted, state, like))
    return as_stored(state, getattr(like, "dtype", None))


def as_stored(array: Array, dtype: np.dtype | None) -> Array:
    """An array converted from one dtype of `state_dtype` to another; as it is if either isn't
    one."""
    if {arrays.DTYPES.get(getattr(array, "dtype", None)), arrays.DTYPES.get(dtype)} != DTYPES.keys():
        return array
    return array.astype(dtype)


def seed_of(document: Document, otherwise: int | None) -> int | None:
    """The seed in a document. Raises StatesError if it isn't one."""
    seed = document.get("seed", otherwise)
    if not isinstance(seed, int | None):
        raise StatesError(f"a seed is a whole number, not {seed!r:.80}")
    return seed
