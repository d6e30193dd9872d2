"""Records: whatever changes the state of a server, one small class a kind of fact.

A server checks what comes, makes a record of what it changes, appends that to its journal, and applies it
(`Server.enter`). `Machine.apply` depends on nothing but the records before: a server that is given the same ones, in
the same order, has the same bits. What isn't in a record isn't state: pushes of rounds that are open, requests that
wait, messages that have come in part are their workers' to send again.

Fields are plain values, arrays, and RowSparse of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mxopt.kvstore.wire import Key


@dataclass(slots=True)
class Mode:
    """How the workers go together, said by the first."""

    mode: str
    staleness: int


@dataclass(slots=True)
class Member:
    """A worker is here, in an epoch of its rank that is higher than those before, and so are these others."""

    rank: int
    epoch: int
    others: list[int]


@dataclass(slots=True)
class First:
    """The first value of piece `piece` of this server's part of a key, see `values.Entry`; flat."""

    key: Key
    dtype: str
    shape: list[int]
    whole: list[int]
    first: int
    piece: int
    value: Any


@dataclass(slots=True)
class FirstRows:
    """Some of the `total` rows that are there from the beginning of a key that is stored by rows, see
    `tables.TableEntry`: their numbers, and the rows, flat. `table` is that of `Table.plain`."""

    key: Key
    table: dict[str, Any]
    declared: bool
    servers: int
    total: int
    ids: Any
    value: Any


@dataclass(slots=True)
class Update:
    """Round `number` of the parts that `keys` name (see `groups.Keys`) is over.

    `value` is the sum of what all workers pushed for it, and `rank` is ALL; or what one worker pushed where every push
    is an update. With an `error` there was none. `update` is the worker's count of updates, where it is the only one.
    """

    keys: tuple[Any, ...]
    rank: int
    number: int
    value: Any
    update: int
    error: Exception | None


@dataclass(slots=True)
class Optimizer:
    """The workers' call of `set_optimizer` number `event`; `config` is None for no optimizer."""

    event: int
    config: dict[str, Any] | None


@dataclass(slots=True)
class Changed:
    """The optimizer's hyper-parameters have changed; states and counts stay. `version` counts the changes."""

    config: dict[str, Any]
    version: int


@dataclass(slots=True)
class Loaded:
    """The workers' load number `event` of the states of a key: a document of `mxopt.document`."""

    event: int
    key: Key
    document: bytes


@dataclass(slots=True)
class Cut:
    """All workers have come to the same point of their program: cut `number`, see `cuts.py`."""

    number: int


Record = Cut | Mode | Member | First | FirstRows | Update | Optimizer | Changed | Loaded
