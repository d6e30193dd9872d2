"""Row-sparse gradients and pulls over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import KeyInfo
from mxopt.kvstore.placement import Layout
from mxopt.kvstore.wire import Frame
from mxopt.sparse import RowSparse, moving
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table
from mxopt.typing import Array

MESSAGE_BYTES = wire.MAX_FRAME  # of rows and their numbers in one message
ASKED_BYTES = 64 << 20  # bytes of rows that are asked for before they are written where they belong


def init(connections: Connections, info: KeyInfo, value: RowSparse | None, round: int, call: Call) -> None:
    """Gives servers a key that is stored by rows, with the rows of `value`; a server without any
    hears of it too."""
    table = info.table
    assert table is not None
    first_rows, indices = (None, np.empty(0, np.int64)) if value is None else value.parts()
    for turn in _turns(info, indices):
        for share, frames in zip(turn, _frames(connections, info, turn, first_rows), strict=True):
            message = m.InitTable(
                0, info.key, wire.name_of(info.dtype), list(table.shape), len(info.layout.stripes), info.declared,
                table.init, table.scale, table.seed, share.first, share.total, round, frames,
            )  # fmt: skip
            connections.send(share.server, message, call, nbytes=len(frames[1]))


def push(
    connections: Connections,
    info: KeyInfo,
    value: RowSparse,
    step: int,
    update: int,
    config_for: Callable[[int], int],
    call: Call | None,
) -> None:
    """Sends the rows of `value` to the servers that hold them; servers that hold none are told of
    the push too."""
    for turn in _turns(info, value.indices):
        for share, frames in zip(turn, _frames(connections, info, turn, value.data), strict=True):
            config = config_for(share.server)  # which comes before the first of several messages
            message = m.PushRows(0, info.key, info.round, step, share.first, share.total, update, config, frames)
            connections.send(share.server, message, call, None, len(frames[1]))


def pull(connections: Connections, info: KeyInfo, ids: np.ndarray, step: int) -> np.ndarray:
    """The rows `ids` (ascending) as a new array (len(ids), ...)."""
    data, call = moving.empty_rows(len(ids), info.layout.unit, info.dtype), Call()
    for share in chain.from_iterable(_turns(info, ids)):
        size = len(share.ids) * info.layout.unit

        def sink(answer: m.Values, places: slice | np.ndarray = share.places, size: int = size) -> None:
            came = wire.array_of(answer.data[0], info.dtype, size, info.key).reshape(-1, info.layout.unit)
            if isinstance(places, slice):
                data[places] = came
            else:
                moving.put(data, [(places, came)])

        if size:
            message = m.PullRows(0, info.key, info.round, step, [wire.bytes_of(share.ids)])
            connections.send(share.server, message, call, sink, size * info.dtype.itemsize)
    connections.wait(call, f"row_sparse_pull of key {info.key!r}")
    return data.reshape(len(ids), *info.shape[1:])


def fill(connections: Connections, info: KeyInfo, outs: Sequence[Array], step: int) -> None:
    """Writes all rows of a key that is stored by rows into dense `outs`."""
    batch = _at_once(info)
    for first in range(0, info.shape[0], batch):
        ids = np.arange(first, min(info.shape[0], first + batch))
        found = pull(connections, info, ids, step)
        for out in outs:
            out[first : first + len(ids)] = found


def there(connections: Connections, info: KeyInfo, step: int) -> RowSparse:
    """All rows of a key that is stored by rows which the servers have; a table stays one."""
    assert info.table is not None
    ids = np.sort(np.concatenate([_numbers(connections, info, s.server, step) for s in info.layout.stripes]))
    found = of_table(info.table, Initial(info.table, info.key) if info.declared else None)
    batch = _at_once(info)
    for first in range(0, len(ids), batch):
        part = ids[first : first + batch]
        found.write(pull(connections, info, part, step), part)
    return found


def _numbers(connections: Connections, info: KeyInfo, server: int, step: int) -> np.ndarray:
    """Which rows a server has, in the order in which they came."""

    def ask(offset: int) -> m.ListRows:
        return m.ListRows(0, info.key, info.round, offset, step)

    document = connections.document(server, ask, f"the rows' numbers of key {info.key!r}")
    return wire.array_of(document, wire.INT64, len(document) // 8, info.key)


def _at_once(info: KeyInfo) -> int:
    """The rows that are asked for before they are written where they belong."""
    return max(1, ASKED_BYTES // max(1, info.layout.unit * info.dtype.itemsize))


def _batch(info: KeyInfo) -> int:
    """The rows in a message."""
    return max(1, MESSAGE_BYTES // (8 + info.layout.unit * info.dtype.itemsize))


class _Share(NamedTuple):
    """What a message to a server is about: so many rows after the `first` of the `total` there.

    `ids`: their numbers, as the server knows them. `places`: where they are among those of the
    call, a slice where they follow each other.
    """

    server: int
    ids: np.ndarray
    places: slice | np.ndarray
    first: int
    total: int


def _turns(info: KeyInfo, ids: np.ndarray) -> Iterator[list[_Share]]:
    """What messages to the servers in turn are about, for rows `ids` (ascending). A server without
    any has one message."""
    shares, batch, first = list(_shares(info.layout, ids)), _batch(info), 0
    while shares:
        part = slice(first, first + batch)
        yield [_Share(server, mine[part], rows[part], first, len(mine)) for server, mine, rows in shares]
        first += batch
        shares = [share for share in shares if len(share[1]) > first]


def _shares(layout: Layout, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray, _Range | np.ndarray]]:
    """(server, numbers of the rows there as it knows them, their places among `ids`), for rows
    `ids` (ascending): the places as an array, or a range where they follow each other."""
    stripes = layout.stripes
    scattered = layout.by_rows and len(stripes) > 1
    holders = ids % len(stripes) if scattered else ids
    for number, stripe in enumerate(stripes):
        if scattered:
            places = np.flatnonzero(holders == number)
            yield stripe.server, ids[places], places
        else:
            first, last = (int(n) for n in np.searchsorted(ids, (stripe.start, stripe.stop)))
            yield stripe.server, ids[first:last] - stripe.start, _Range(first, last)


def _frames(connections: Connections, info: KeyInfo, turn: list[_Share], data: np.ndarray | None) -> list[list[Frame]]:
    """For each message of a turn its frames: rows' numbers, and a copy of these rows of `data`."""
    made, parts = [], []
    for server, ids, places, _, _ in turn:
        frames = connections.room(server, ids.nbytes, len(ids) * info.layout.unit * info.dtype.itemsize)
        made.append(frames)
        if data is None or not len(ids):
            continue
        wire.array_of(frames[0], wire.INT64, len(ids), info.key)[:] = ids
        into = wire.array_of(frames[1], info.dtype, len(ids) * info.layout.unit, info.key)
        rows = into.reshape(len(ids), *data.shape[1:])
        if isinstance(places, slice):
            rows[...] = data[places]
        else:
            parts.append((places, rows))
    if data is not None and parts:
        moving.take(data, parts)
    return made


class _Range:
    """Places that follow each other, which are cut as an array of them is."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last

    def __getitem__(self, part: slice) -> slice:
        first, last, _ = part.indices(self.last - self.first)
        return slice(self.first + first, self.first + last)
