"""Cuts calls of a distributed store into messages: pieces of large arrays, batches of small
ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Sink
from mxopt.kvstore.compression import GradientCompression
from mxopt.kvstore.placement import Layout
from mxopt.kvstore.wire import PIECE_BYTES, Frame, Key
from mxopt.sparse import Table
from mxopt.typing import Array

ALONE = 1 << 19  # bytes from which a key has a message of its own: without lent memory joining it costs a copy
NAMES = 256 << 10  # bytes of keys in a message
PLANS = 256  # plans kept; one for each list of keys that is used together


@dataclass(slots=True)
class KeyInfo:
    """What all workers know of a key."""

    key: Key
    dtype: np.dtype
    shape: tuple[int, ...]
    size: int
    layout: Layout
    round: int = 0  # of this worker's last push
    table: Table | None = None  # of a key that is stored by rows
    declared: bool = False  # whether it was a table when it came, not a row-sparse value


@dataclass(slots=True)
class Item:
    """What one message carries: a piece of one key (`size` elements from `start` on), or several
    whole keys, which are of one round."""

    server: int
    dtype: np.dtype
    keys: list[Key]
    infos: list[KeyInfo]
    piece: int
    start: int
    size: int
    nbytes: int
    pulled: bool = False  # since its last push
    ahead: Any = None  # the values that the answer to that brings, see `pulls`


def plan(infos: Sequence[KeyInfo], shapes: bool = False) -> list[Item]:
    """The messages that carry these keys, those to different servers in turn; with `shapes` that of
    each key, and of a server's part of it, goes along."""
    queues: dict[int, list[Item]] = {}
    batches: dict[tuple[int, np.dtype], Item] = {}
    names: dict[tuple[int, np.dtype], int] = {}
    for info in infos:
        stripes = info.layout.stripes
        itemsize = info.dtype.itemsize
        if len(stripes) == 1 and stripes[0].pieces == 1 and info.size * itemsize < ALONE:
            server = stripes[0].server
            batch = batches.get((server, info.dtype))
            name = (server, info.dtype)
            named = header_bytes(info.key) + 18 * len(info.shape) * shapes
            names[name] = names.get(name, 0) + named
            if batch is None or batch.nbytes + info.size * itemsize > PIECE_BYTES or names[name] > NAMES:
                names[name] = named
                batch = batches[server, info.dtype] = Item(server, info.dtype, [], [], 0, 0, 0, 0)
                queues.setdefault(server, []).append(batch)
            batch.keys.append(info.key)
            batch.infos.append(info)
            batch.size += info.size
            batch.nbytes += info.size * itemsize
            continue
        for stripe in stripes:
            for piece in range(stripe.pieces):
                a, b = (n * info.layout.unit for n in stripe.bounds(piece))
                item = Item(stripe.server, info.dtype, [info.key], [info], piece, a, b - a, (b - a) * itemsize)
                queues.setdefault(stripe.server, []).append(item)
    return list(_in_turn(list(queues.values())))


def header_bytes(key: Key) -> int:
    """The bytes that a key, with a few numbers, takes in a message's header, at most."""
    return 64 + (4 * len(key) if isinstance(key, str) else 0)


def fitting(keys: Iterable[Key]) -> int:
    """How many of these keys, from the first on, fit into one message's header."""
    left, count = NAMES, 0
    for key in keys:
        left -= header_bytes(key)
        if left < 0:
            break
        count += 1
    return count


def _in_turn(queues: list[list[Item]]) -> Iterator[Item]:
    for k in range(max(map(len, queues), default=0)):
        for queue in queues:
            if k < len(queue):
                yield queue[k]


def gather(item: Item, values: dict[Key, np.ndarray]) -> np.ndarray:
    """The elements an item carries, flat; a view where it is of one key."""
    if len(item.infos) == 1:
        flat = values[item.keys[0]].reshape(-1)
        return flat if item.size == flat.size else flat[item.start : item.start + item.size]
    return np.concatenate([values[key].reshape(-1) for key in item.keys])


def copy(item: Item, values: dict[Key, np.ndarray], frame: Frame) -> None:
    """Writes the elements an item carries into a frame."""
    if item.size:
        into = wire.array_of(frame, item.dtype, item.size, item.keys[0])
        if len(item.infos) == 1:
            into[:] = gather(item, values)
        else:
            np.concatenate([values[key].reshape(-1) for key in item.keys], out=into)


def compressed(item: Item, flat: np.ndarray, compression: GradientCompression) -> np.ndarray:
    """The bytes to send for the elements `flat` of an item; each key keeps one residual in
    `compression`."""
    residuals = compression.residuals
    for info in item.infos:
        if info.key not in residuals:
            residuals[info.key] = np.zeros(info.size, np.float32)
    if len(item.infos) == 1:
        return compression.encode(flat, residuals[item.keys[0]][item.start : item.start + item.size])
    joined = np.concatenate([residuals[key] for key in item.keys])
    sent = compression.encode(flat, joined)
    start = 0
    for info in item.infos:
        residuals[info.key][:] = joined[start : start + info.size]
        start += info.size
    return sent


def scatter(item: Item, frame: Frame, outs: dict[Key, list[Array]]) -> None:
    """Writes an item's elements into each out of its keys. Raises ProtocolError unless there are as
    many."""
    data = wire.array_of(frame, item.dtype, item.size, item.keys[0])
    if len(item.infos) == 1:
        info = item.infos[0]
        whole = data.reshape(info.shape) if item.size == info.size else None
        for out in outs[info.key]:
            if whole is not None:
                out[...] = whole
            elif out.flags.c_contiguous:
                out.reshape(-1)[item.start : item.start + item.size] = data
            else:
                out.flat[item.start : item.start + item.size] = data
        return
    start = 0
    for info in item.infos:
        stop = start + info.size
        part = data[start:stop] if len(info.shape) == 1 else data[start:stop].reshape(info.shape)
        for out in outs[info.key]:
            out[...] = part
        start = stop


def sink(item: Item, outs: dict[Key, list[Array]]) -> Sink:
    """Takes an answer with the values of an item, which go into the outs of its keys."""

    def take(answer: m.Values) -> None:
        scatter(item, answer.data[0], outs)

    return take
