"""Carries the values and gradients of a `Trainer` through a store, mxopt's or a user's own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mxopt import settings
from mxopt.errors import ArgumentError, ArgumentTypeError, KVStoreError
from mxopt.kvstore.base import KVStoreBase
from mxopt.kvstore.kinds import LOCAL, create, known
from mxopt.kvstore.local import KVStore
from mxopt.parameter import Parameter
from mxopt.sparse import RowSparse
from mxopt.typing import Array

CHECKSUMS = 32  # of a Trainer's names
SHOWN = 5  # names that a message lists


def check_asked(asked: object) -> None:
    """Raises if a Trainer is asked to use something that is neither a store nor a kind of one."""
    if isinstance(asked, str):
        known(asked)
    elif asked is not None and not isinstance(asked, KVStoreBase):
        raise ArgumentTypeError(f"kvstore must be a name or a store, got {asked!r}")


def store_of(asked: str | KVStoreBase | None) -> Any:
    """The store to use; None if there is one copy of each parameter, which needs none."""
    if isinstance(asked, str):
        return None if known(asked) in LOCAL else create(asked)
    return asked


def updates_in(store: Any, asked: bool | None) -> bool:
    """Whether the store is to update. Raises ArgumentError if it can't do what is asked."""
    if "async" in store.type or "ssp" in store.type:
        if asked is False:
            raise ArgumentError(f"{store.type} updates on the servers: update_on_kvstore=False can't be")
        return True
    if not store.is_capable("optimizer"):
        if asked:
            raise ArgumentError(f"{type(store).__name__} has no optimizer: update_on_kvstore=True can't be")
        return False
    return settings.update_on_kvstore() if asked is None else asked


def takes_lists(store: Any) -> bool:
    """Whether it is a store of mxopt's, which takes several keys at once; a user's own gets one at
    a time."""
    return type(store).__module__.startswith("mxopt.") and bool(store.is_capable("optimizer"))


def broadcast(store: Any, params: Sequence[Parameter]) -> None:
    """Initialises the keys 0, 1, and so on, and gives the parameters the values that the store then
    has, those of rank 0.

    Raises KVStoreError if rank 0 has as many parameters that are called otherwise: keys say only
    which comes after which, and one parameter would get another's gradients.
    """
    values = [param.value for param in params]
    if takes_lists(store):
        if values:
            if "dist" in store.type:
                _check_names(store, [param.name for param in params])
            store.broadcast(list(range(len(values))), values, list(values))
    else:
        for key, value in enumerate(values):
            store.broadcast(key, value, value)


def _check_names(store: Any, names: Sequence[str | None]) -> None:
    """Compares names with rank 0's, where all have one, by a few checksums: no message grows with
    their number."""
    size = math.ceil(len(names) / CHECKSUMS)
    parts = [names[k : k + size] for k in range(0, len(names), size)]
    mine: Any = None
    if None not in names:
        mine = [len(names), [hashlib.sha256(repr(part).encode()).hexdigest() for part in parts]]
    theirs = store.from_rank_0(mine)
    if mine is None or theirs is None or mine[0] != theirs[0]:
        return
    for k, (part, here, there) in enumerate(zip(parts, mine[1], theirs[1], strict=True)):
        if here != there:
            which = f"parameters {k * size} to {k * size + len(part) - 1} are" if size > 1 else f"parameter {k} is"
            shown = ", ".join(map(repr, part[:SHOWN])) + " ..." * (len(part) > SHOWN)
            raise KVStoreError(
                f"{which} called {shown} in the Trainer of rank {store.rank}, and otherwise in that of rank 0: workers"
                " make their Trainers of the same parameters in the same order"
            )


def exchange(store: Any, grads: Mapping[int, Array], values: Sequence[Array], updates: bool, step: int) -> None:
    """Sums the gradients over all workers, in place; where the store `updates`, pushes them and
    pulls the values.

    `grads` are by the position of their parameter in `values`; `step` is which exchange of the
    training this is, and workers of a distributed store have to do the same in it. Raises what the
    store raises.
    """
    if not (takes_lists(store) and "dist" in store.type):
        _exchange(store, grads, values, updates)
        return
    store.step = step
    try:
        _exchange(store, grads, values, updates)
    finally:
        store.step = 0


def _exchange(store: Any, grads: Mapping[int, Array], values: Sequence[Array], updates: bool) -> None:
    sparse: list[int] = []
    dense: list[int] = []
    for i, grad in grads.items():
        (sparse if RowSparse in (type(grad), type(values[i])) else dense).append(i)
    if updates:  # otherwise the store is a local one, where there is nothing to sum them with
        for i in sparse:
            whole = {"ignore_sparse": False} if isinstance(values[i], RowSparse) else {}
            store.push(i, grads[i], priority=-i)
            store.pull(i, values[i], priority=-i, **whole)
    if not dense:
        return
    outs = [values[i] if updates else grads[i] for i in dense]
    if takes_lists(store):
        store.pushpull(dense, [grads[i] for i in dense], out=outs if updates else None)
        return
    for i, out in zip(dense, outs, strict=True):
        store.pushpull(i, grads[i], out=out, priority=-i)


def check_sparse(store: Any, params: Iterable[Parameter], updates: bool, guarded: str = "") -> None:
    """Raises ArgumentError if a row-sparse value or gradient of a parameter can't go through the
    store. `guarded` is the argument for which a Trainer must update by itself, if there is one."""
    if store is None or isinstance(store, KVStore):
        return
    for param in params:
        if isinstance(param.value, RowSparse):
            raise ArgumentError(
                f"parameter {param.name!r}: a Trainer with a {store.type} store can't know which rows of a row-sparse"
                " value are wanted: push, and row_sparse_pull those, by the store itself"
            )
        if not updates and isinstance(param.grad, RowSparse):
            raise ArgumentError(
                f"parameter {param.name!r}: a {store.type} store can't sum row-sparse gradients for a Trainer that"
                f" updates by itself: {_instead_of_rows(guarded)}"
            )


def _instead_of_rows(guarded: str) -> str:
    """What to do about row-sparse gradients that the store can't sum."""
    if not guarded:
        return "make it with update_on_kvstore=True"
    dense = f"{guarded} needs one that does, so give it the gradient as a dense array, grad.todense()"
    if guarded != "clip_global_norm":
        return dense
    return (
        f"{dense}; or make it with update_on_kvstore=True, without clip_global_norm, and let each worker clip its own"
        " gradients before step, by mxopt.clip_global_norm(grads, max_norm)"
    )
