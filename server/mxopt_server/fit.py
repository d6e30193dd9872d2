"""Whether the states that a worker loads are those of a server's optimizer."""

from __future__ import annotations

from typing import Any

from mxopt.errors import StatesError, counted
from mxopt.optimizer import Optimizer
from mxopt.sparse import RowSparse
from mxopt.state_dtype import converted
from mxopt.typing import State
from mxopt_server.entries import Entry


def fitting(optimizer: Optimizer, entry: Entry, state: State, whole: bool) -> State:
    """A state of the entry, in what the optimizer stores states in; `whole`: it needs whole arrays.
    Raises StatesError if it is none: its optimizer makes others. What an optimizer of one's own
    makes may change with the training."""
    if optimizer.overridden & {"create_state", "create_state_multi_precision"}:
        return state
    weight = entry.weight.reshape(entry.whole) if whole and not entry.by_rows else entry.weight
    made = optimizer.create_state_multi_precision(entry.key, weight)
    state = converted(state, made)
    wrong = _difference(state, made, entry.by_rows and entry.weight.initial is not None)
    if wrong:
        raise StatesError(f"key {entry.key!r}: the states don't fit {optimizer!r}: {wrong}")
    return state


def _difference(state: object, made: object, table: bool) -> str:
    """How a state differs from one that the optimizer makes; empty if it doesn't. That of a `table`
    has its rows."""
    if isinstance(made, tuple | list):
        if not isinstance(state, tuple | list) or len(state) != len(made):
            return f"a state has {counted(len(made), 'part')}, this one is {state!r:.80}"
        found = (_difference(*pair, table) for pair in zip(state, made, strict=True))
        return next(filter(None, found), "")
    by_rows = [isinstance(each, RowSparse) for each in (state, made)]
    if by_rows == [True, False] or (table and by_rows == [False, True]):
        return f"there is {_kind(state)} {'by rows, of a dense value' if by_rows[0] else 'whole, of a table'}"
    known = made is None or state is None or hasattr(made, "dtype")
    return f"there is {_kind(state)} instead of {_kind(made)}" if known and _kind(state) != _kind(made) else ""


def _kind(part: Any) -> str:
    return f"{part.dtype} {tuple(part.shape)}" if hasattr(part, "dtype") else f"{part!r:.80}"
