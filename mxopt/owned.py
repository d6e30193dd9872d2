"""Which optimizers and stores are a Trainer's: two would count and name the same things."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from mxopt import nn
from mxopt.errors import ArgumentError, counted
from mxopt.experimental import optim as experimental
from mxopt.kvstore.base import KVStoreBase
from mxopt.optimizer import Optimizer
from mxopt.parameter import Parameter

AnyOptimizer = Optimizer | experimental.Optimizer | nn.Optimizer
_owners: WeakKeyDictionary[object, weakref.ref[object]] = WeakKeyDictionary()


def claim(trainer: object, *things: object) -> None:
    """Makes those of the things that have an owner this Trainer's, for as long as it lives."""
    for thing in filter(_has_owner, things):
        _owners[thing] = weakref.ref(trainer)


def check_free(thing: object, what: str) -> None:
    """Raises ArgumentError if an optimizer or a store is a Trainer's, and so is `what`."""
    if _has_owner(thing) and _owners.get(thing, lambda: None)() is not None:
        raise ArgumentError(
            f"the {type(thing).__name__} is another Trainer's already, and so are {what}: give each a new one"
        )


def _has_owner(thing: object) -> bool:
    """Whether it is an optimizer, or a store that can have one: others keep nothing of a
    Trainer."""
    return isinstance(thing, AnyOptimizer) or (isinstance(thing, KVStoreBase) and thing.is_capable("optimizer"))


def in_order_of(optimizer: experimental.Optimizer | nn.Optimizer, params: Sequence[Parameter]) -> list[Parameter]:
    """The parameters of an optimizer, which must be the same as `params`. Raises ArgumentError if
    they aren't."""
    its, name = list(optimizer.parameters), type(optimizer).__name__
    for param in params:
        if not any(param is p for p in its):
            what = f"parameter {param.name!r} is none of those that the {name} has"
            raise ArgumentError(f"{what}: make Parameters of arrays, and give the same to both")
    if len(its) != len(params):
        raise ArgumentError(f"the {name} has {counted(len(its), 'parameter')}, the Trainer {len(params)}")
    return its
