"""Row-sparse gradients and pulls over the wire, for arrays whose rows are units of their layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import Meta
from mxopt.kvstore.placement import Stripe
from mxopt.sparse import RowSparse

BYTES = 4 << 20  # of rows, or of their numbers, in one message


def push(
    connections: Connections,
    meta: Meta,
    value: RowSparse,
    step: int,
    update: int,
    config_for: Callable[[int], int],
    call: Call | None,
) -> None:
    """Sends the rows of `value` to the servers that hold them; servers without any hear of the push too."""
    for stripe, first, last, offset, total in _runs(meta, value.indices):
        ids = value.indices[first:last] - stripe.start
        data = np.array(value.data[first:last])
        config = config_for(stripe.server) if last - first + offset == total else 0
        frames = [wire.bytes_of(ids), wire.bytes_of(data)]
        message = m.PushRows(0, meta.key, meta.round, step, offset, total, update, config, frames)
        connections.send(stripe.server, message, call, None, data.nbytes)


def pull(connections: Connections, meta: Meta, ids: np.ndarray, step: int) -> np.ndarray:
    """The rows `ids` (ascending) as a new array (len(ids), ...)."""
    data = np.empty((len(ids), meta.layout.unit), meta.dtype)
    call = Call()
    for stripe, first, last, *_ in _runs(meta, ids):
        target = data[first:last]

        def sink(answer: m.Values, target: np.ndarray = target) -> None:
            found = wire.array_of(answer.data[0], meta.dtype, target.size, meta.key)
            target[...] = found.reshape(target.shape)

        if len(target):
            frame = wire.bytes_of(ids[first:last] - stripe.start)
            message = m.PullRows(0, meta.key, meta.round, step, [frame])
            connections.send(stripe.server, message, call, sink, target.nbytes)
    connections.wait(call, f"row_sparse_pull of key {meta.key!r}")
    return data.reshape(len(ids), *meta.shape[1:])


def _runs(meta: Meta, ids: np.ndarray) -> Iterator[tuple[Stripe, int, int, int, int]]:
    """(stripe, first, last, rows of the stripe before them, rows of the stripe) of the messages with rows `ids`."""
    step = max(1, BYTES // max(8, meta.layout.unit * meta.dtype.itemsize))
    for stripe in meta.layout.stripes:
        a, b = (int(n) for n in np.searchsorted(ids, (stripe.start, stripe.stop)))
        for first in range(a, max(b, a + 1), step):
            last = min(b, first + step)
            yield stripe, first, last, first - a, b - a
