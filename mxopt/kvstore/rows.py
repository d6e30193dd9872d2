"""Row-sparse gradients and pulls over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import KeyInfo
from mxopt.kvstore.placement import Layout
from mxopt.kvstore.wire import Frame
from mxopt.sparse import RowSparse
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table
from mxopt.typing import Array

ROW_BYTES = 4 << 20  # bytes of a row
MESSAGE_BYTES = wire.MAX_FRAME  # of rows and their numbers in one message
ASKED_BYTES = 64 << 20  # bytes of rows that are asked for before they are written where they belong


def init(connections: Connections, info: KeyInfo, value: RowSparse | None, round: int, call: Call) -> None:
    """Gives servers a key that is stored by rows, with the rows of `value`; a server without any
    hears of it too."""
    table = info.table
    assert table is not None
    first_rows, indices = (None, np.empty(0, np.int64)) if value is None else value.parts()
    for server, ids, rows in _shares(info.layout, indices):
        batch = _batch(info)
        for first in range(0, max(len(ids), 1), batch):
            part = slice(first, first + batch)
            frames = _frames(connections, server, info, ids[part], first_rows, rows[part])
            message = m.InitTable(
                0, info.key, wire.name_of(info.dtype), list(table.shape), len(info.layout.stripes), info.declared,
                table.init, table.scale, table.seed, first, len(ids), round, frames,
            )  # fmt: skip
            connections.send(server, message, call, nbytes=len(frames[1]))


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
    for server, ids, rows, first, total in _in_turn(info, value.indices):
        config = config_for(server)  # which comes before the first of several messages
        frames = _frames(connections, server, info, ids, value.data, rows)
        message = m.PushRows(0, info.key, info.round, step, first, total, update, config, frames)
        connections.send(server, message, call, None, len(frames[1]))


def pull(connections: Connections, info: KeyInfo, ids: np.ndarray, step: int) -> np.ndarray:
    """The rows `ids` (ascending) as a new array (len(ids), ...)."""
    data, call = np.empty((len(ids), info.layout.unit), info.dtype), Call()
    row = np.dtype((np.void, max(1, info.layout.unit * info.dtype.itemsize)))
    whole = data.reshape(-1).view(row)  # places of whole rows are written faster than those of elements
    for server, mine, rows, _, _ in _in_turn(info, ids):
        size = len(mine) * info.layout.unit

        def sink(answer: m.Values, place: slice | np.ndarray = rows, size: int = size) -> None:
            if size:
                whole[place] = wire.array_of(answer.data[0], info.dtype, size, info.key).view(row)

        if len(mine):
            message = m.PullRows(0, info.key, info.round, step, [wire.bytes_of(mine)])
            connections.send(server, message, call, sink, size * info.dtype.itemsize)
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


def _in_turn(info: KeyInfo, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray, slice | np.ndarray, int, int]]:
    """What messages to the servers in turn are about: (server, numbers of some rows there, nobody
    else's; their places among `ids`; how many rows there are before them, and in all). A server
    without any has one."""
    shares, batch, first = list(_shares(info.layout, ids)), _batch(info), 0
    while shares:
        for server, mine, rows in shares:
            part = slice(first, first + batch)
            yield server, mine[part], rows[part], first, len(mine)
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


def _frames(
    connections: Connections,
    server: int,
    info: KeyInfo,
    ids: np.ndarray,
    data: np.ndarray | None,
    places: slice | np.ndarray,
) -> list[Frame]:
    """The frames of a message: rows' numbers, and a copy of the rows that are at these places of
    `data`."""
    count, unit = len(ids), info.layout.unit
    frames = connections.room(server, ids.nbytes, count * unit * info.dtype.itemsize)
    if data is not None and count:
        wire.array_of(frames[0], wire.INT64, count, info.key)[:] = ids
        into = wire.array_of(frames[1], info.dtype, count * unit, info.key).reshape(count, *data.shape[1:])
        if isinstance(places, slice):
            into[...] = data[places]
        else:
            data.take(places, axis=0, out=into, mode="clip")  # where that is "raise" there is a copy more
    return frames


class _Range:
    """Places that follow each other, which are cut as an array of them is."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last

    def __getitem__(self, part: slice) -> slice:
        first, last, _ = part.indices(self.last - self.first)
        return slice(self.first + first, self.first + last)
