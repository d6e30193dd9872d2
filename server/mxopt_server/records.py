"""Records: all that changes the state of a server, with a small class for each kind of fact.

A server checks what comes, makes a record of what it changes, appends that to its journal, and
applies it (`Machine.enter`). That depends on nothing but the records before: a server that is given
the same ones, in the same order, has the same bits. What isn't in a record isn't state: pushes of
rounds that are open, requests that wait, messages that have come in part are their workers' to send
again.

Fields are plain values, arrays, and RowSparse of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mxopt.kvstore.wire import Key
from mxopt.typing import Array, Plain


@dataclass(slots=True)
class Mode:
    """How the workers go together, said by the first."""

    mode: str
    staleness: int


@dataclass(slots=True)
class Member:
    """A worker is here, in an epoch of its rank that is higher than those before, and so are these
    others."""

    rank: int
    epoch: int
    others: list[int]


@dataclass(slots=True)
class First:
    """The first value of piece `piece` of this server's part of a key, flat; see
    `entries.Entry`."""

    key: Key
    dtype: str
    shape: list[int]
    whole: list[int]
    first: int
    round: int
    piece: int
    value: Array


@dataclass(slots=True)
class FirstRows:
    """Some of the `total` rows that are there from the beginning of a key that is stored by rows,
    see `tables.TableEntry`: their numbers, and the rows, flat. `table` is that of `Table.plain`."""

    key: Key
    table: Plain
    declared: bool
    servers: int
    round: int
    total: int
    ids: Array
    value: Array


@dataclass(slots=True)
class Update:
    """Round `number` of the parts that `keys` name (see `entries.GroupKey`) is over.

    `value` is the sum of what all workers pushed for it, and `rank` is ALL; or what one worker
    pushed where every push is an update. With an `error` there was none. `update` is the worker's
    count of updates, where it is the only one.
    """

    keys: tuple[Any, ...]
    rank: int
    number: int
    value: Array
    update: int
    error: Exception | None


@dataclass(slots=True)
class Optimizer:
    """The workers' call of `set_optimizer` number `event`; `config` is None for no optimizer."""

    event: int
    config: Plain | None


@dataclass(slots=True)
class Changed:
    """The optimizer's hyper-parameters have changed; states and counts stay. `version` counts the
    changes."""

    config: Plain
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


@dataclass(slots=True)
class Refusal:
    """The record before was refused, in these words: it has changed nothing, but that who asks
    again hears the same."""

    text: str


def described(record: Record) -> str:
    """A record in words, for messages."""
    if isinstance(record, Update):
        one = isinstance(record.keys[0], tuple)
        keys = [record.keys[0][0]] if one else [key for key in record.keys if key is not None]
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return f"the update of key {keys[0]!r}{more} in round {record.number}"
    about = f" of key {record.key!r}" if isinstance(record, First | FirstRows | Loaded) else ""
    if isinstance(record, Optimizer | Changed) and record.config is not None:
        about = f" {record.config.get('name')!r}"
    return f"the record {type(record).__name__}{about}"


Record = Cut | Mode | Member | First | FirstRows | Update | Optimizer | Changed | Loaded | Refusal
