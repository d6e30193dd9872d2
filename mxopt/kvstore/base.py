"""The interface of key-value stores, and the registry of users' own classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, ClassVar, TypeVar

from mxopt.caller import warn
from mxopt.engine import arrays
from mxopt.errors import ArgumentError, NotDefinedError, UsageError
from mxopt.kvstore.values import Key
from mxopt.typing import Array

K = TypeVar("K", bound=type)


class KVStoreBase:
    """The interface of all stores. A user's own store defines `broadcast`, `pushpull` and what else
    it can."""

    OPTIMIZER: ClassVar[str] = "optimizer"
    kv_registry: ClassVar[dict[str, type[KVStoreBase]]] = {}

    def broadcast(self, key: Any, value: Array, out: Array, priority: int = 0) -> None:
        """Writes the value of rank 0 to `out` of all ranks."""
        raise NotDefinedError(f"{type(self).__name__} doesn't define broadcast")

    def check_new(self, keys: Iterable[int | str]) -> None:
        """Raises if `broadcast` of these keys would, because the store has a value of one already.
        A user's own store need not define this."""

    def pushpull(self, key: Any, value: Array, out: Array = None, priority: int = 0) -> None:
        """Sums `value` over all ranks, and writes the store's result to `out`, or to `value` if
        there is no `out`."""
        raise NotDefinedError(f"{type(self).__name__} doesn't define pushpull")

    def set_optimizer(self, optimizer: Any) -> None:
        """Makes the store update its values with what is pushed."""
        raise NotDefinedError(f"{type(self).__name__} has no optimizer")

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store has a capability; there is one, 'optimizer'."""
        raise NotDefinedError

    def save_optimizer_states(self, fname: str | PathLike[str], dump_optimizer: bool = False) -> None:
        """Writes the optimizer's states to a file."""
        raise NotDefinedError(f"{type(self).__name__} has no optimizer")

    def load_optimizer_states(self, fname: str | PathLike[str]) -> None:
        """Loads the optimizer's states from a file."""
        raise NotDefinedError(f"{type(self).__name__} has no optimizer")

    def save_checkpoint(self, folder: str | os.PathLike[str]) -> None:
        """Writes all that a job has trained; distributed stores do."""
        raise NotDefinedError(f"{type(self).__name__} makes no checkpoints: save_optimizer_states, and the weights")

    def load_checkpoint(self, folder: str | os.PathLike[str]) -> None:
        """Loads what `save_checkpoint` has written."""
        raise NotDefinedError(f"{type(self).__name__} has no checkpoints: load_optimizer_states, and the weights")

    @property
    def compresses(self) -> bool:
        """Whether pushed gradients are compressed with loss."""
        return False

    @property
    def type(self) -> str:
        """The kind of store."""
        raise NotDefinedError

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        raise NotDefinedError

    @property
    def num_workers(self) -> int:
        """How many workers share the store."""
        raise NotDefinedError

    def close(self) -> None:
        """Returns once all that was pushed has been taken, and leaves the job, if the store is one
        of a job. One that lives in this process has nothing to wait for, and stays as it is."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    @staticmethod
    def register(klass: K) -> K:
        """Registers a class of stores under its name in lower case; usable as a decorator. Warns
        where it takes another's."""
        if not isinstance(klass, type):
            raise UsageError(f"register needs a class, got {klass!r}")
        name = klass.__name__.lower()
        other = KVStoreBase.kv_registry.get(name)
        if other is not None:
            warn(
                f"the new kvstore {klass.__module__}.{klass.__name__} is overriding {other.__module__}.{other.__name__}"
            )
        KVStoreBase.kv_registry[name] = klass
        return klass


def capable(capability: str, optimizer: bool) -> bool:
    """Whether a store has a capability, of which there is one: its optimizer, if it has any. Raises
    ArgumentError for others."""
    if capability.lower() != KVStoreBase.OPTIMIZER:
        raise ArgumentError(f"unknown capability {capability!r}")
    return optimizer


@KVStoreBase.register
class TestStore(KVStoreBase):
    """A store of one worker that keeps nothing: `pushpull` sums a list of values. For tests of what
    uses stores."""

    __test__ = False  # not a test of pytest's

    def broadcast(self, key: Key | Sequence[Key], value: Array, out: Array, priority: int = 0) -> None:
        """Copies `value` to every `out`."""
        for target in _list(out):
            arrays.as_array(target, f"key {key!r}: out")[...] = value

    def pushpull(self, key: Key | Sequence[Key], value: Array, out: Array = None, priority: int = 0) -> None:
        """Writes the sum of the list `value` to every `out`, or back to every value; a single value
        only to `out`."""
        if not isinstance(value, list | tuple):
            self.broadcast(key, value, out if out is not None else [])
            return
        total = sum(arrays.as_array(v, f"key {key!r}") for v in value)
        self.broadcast(key, total, value if out is None else out)

    @staticmethod
    def is_capable(capability: str) -> bool:
        """False for 'optimizer'; raises ValueError for anything else."""
        return capable(capability, optimizer=False)

    @property
    def type(self) -> str:
        return "teststore"

    @property
    def rank(self) -> int:
        return 0

    @property
    def num_workers(self) -> int:
        return 1


def _list(x: object) -> list[Array]:
    return list(x) if isinstance(x, list | tuple) else [x]
