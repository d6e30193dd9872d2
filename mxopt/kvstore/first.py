"""The first values of keys: rank 0's, given to the servers, and their shapes and dtypes to all workers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError, KVStoreError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.exchange import Meta, fitting
from mxopt.kvstore.held import Held
from mxopt.kvstore.values import Key
from mxopt.kvstore.worker import Worker
from mxopt.sparse import RowSparse


def give(worker: Worker, held: Held, key: Any, value: Any, whole: bool) -> None:
    """Gives keys the values of rank 0, each to one server where `whole`, and notes them in `held`; see
    `DistKVStore.init`, which all workers call."""
    rank = worker.member.rank
    given = held.keys.pairs(key, value)
    sparse = {k for k, v in given if isinstance(v[0], RowSparse)}
    pairs = [(k, _dense(v[0], k)) for k, v in given]
    for name, _ in pairs:
        if name in held.metas:
            raise KVStoreError(f"key {name!r} is initialised already (duplicate init)")
    mine = [[k, arrays.DTYPES[v.dtype], list(v.shape), whole] for k, v in pairs]
    worker.changes("init")
    if rank == 0:
        _to_servers(worker, held, pairs, sparse, whole)
    roots = {k: rest for k, *rest in _of_rank_0(worker, mine)}
    metas = []
    for name, array in pairs:
        dtype, shape, whole = roots.get(name, [None, None, None])
        if (dtype, shape) != (arrays.DTYPES[array.dtype], list(array.shape)):
            raise ArrayError(
                f"key {name!r}: rank 0 initialised {dtype} of shape {shape},"
                f" rank {rank} {array.dtype} of shape {list(array.shape)}"
            )
        metas.append(held.meta(name, array, whole))
    _ask_rounds(worker, metas)
    for meta in metas:
        held.add(meta)


def _ask_rounds(worker: Worker, metas: list[Meta]) -> None:
    """Lets the worker count its pushes on from where the servers are."""
    call, asked = Call(), [(stripe.server, meta) for meta in metas for stripe in meta.layout.stripes]
    for server in dict.fromkeys(server for server, _ in asked):
        rest = [meta for each, meta in asked if each == server]
        while rest:
            part = rest[: max(1, fitting(meta.key for meta in rest))]
            rest = rest[len(part) :]

            def sink(answer: m.Present, part: list[Meta] = part) -> None:
                for meta, present in zip(part, answer.rounds, strict=True):
                    meta.round = max(meta.round, present)

            worker.connections.send(server, m.Rounds(0, [meta.key for meta in part]), call, sink)
    worker.connections.wait(call, f"the rounds of {len(metas)} keys")


def _of_rank_0(worker: Worker, mine: list[Any]) -> list[Any]:
    """Rank 0's `mine`, sent to all workers in as many barriers as it takes: no message grows with the number of
    keys."""
    found: list[Any] = []
    rest, more = mine, True
    while more:
        part = rest[: max(1, fitting(k for k, *_ in rest))]
        rest = rest[len(part) :]
        told, more = worker.barrier([part, bool(rest)] if worker.member.rank == 0 else None)
        found += told
    return found


def _to_servers(worker: Worker, held: Held, pairs: list[tuple[Key, np.ndarray]], sparse: set[Key], whole: bool) -> None:
    call = Call()
    for key, array in pairs:
        meta = held.meta(key, array, whole)
        flat, dtype = np.ascontiguousarray(array).reshape(-1), arrays.DTYPES[array.dtype]
        for stripe in meta.layout.stripes:
            shape = [stripe.stop - stripe.start, *meta.layout.unit_shape]
            for piece in range(stripe.pieces):
                a, b = (n * meta.layout.unit for n in stripe.bounds(piece))
                frame = wire.bytes_of(flat[a:b])
                about = dtype, shape, list(array.shape), stripe.start, piece
                message = m.Init(0, key, *about, [frame], row_sparse=key in sparse)
                worker.connections.send(stripe.server, message, call, nbytes=(b - a) * array.itemsize)
    worker.connections.wait(call, f"init of {len(pairs)} keys")


def _dense(value: Any, key: Key) -> np.ndarray:
    if isinstance(value, RowSparse):
        value = value.todense()
    array: np.ndarray = value.get() if arrays.is_cupy(value) else value
    if not arrays.dtype_name(array.dtype):
        names = ", ".join(arrays.DTYPES.values())
        raise ArrayTypeError(f"key {key!r}: servers hold {names}, got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
