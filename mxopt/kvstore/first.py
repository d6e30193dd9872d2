"""The first values of keys: rank 0's, sent to the servers, and their shapes and dtypes to all
workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayError, ArrayTypeError, KVStoreError, counted
from mxopt.kvstore import messages as m, rows, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.exchange import KeyInfo, fitting, gather, plan
from mxopt.kvstore.held import Held
from mxopt.kvstore.placement import needs_whole
from mxopt.kvstore.session import Session
from mxopt.kvstore.values import FIRST, Key
from mxopt.kvstore.worker import Worker
from mxopt.optimizer import Optimizer
from mxopt.sparse import RowSparse, Table, table
from mxopt.typing import Array

SHOWN = 5  # keys that a message lists


def give(
    worker: Worker, held: Held, key: Key | Sequence[Key], value: Array, optimizer: Optimizer | None, round: int = 0
) -> None:
    """Gives keys the values of rank 0, each to one server where the optimizer needs it, and notes
    them in `held`; see `DistKVStore.init`, which all workers call. Their first push is the one
    after rank 0's `round`, where the servers have no such key yet."""
    rank = worker.member.rank
    pairs = [(k, _prepared(v[0], k)) for k, v in held.keys.pairs(key, value, FIRST)]
    for name, _ in pairs:
        wire.check_key(name)
    held.keys.check_new([name for name, _ in pairs])
    mine = [[k, *_about(v), needs_whole(optimizer, _by_rows(v))] for k, v in pairs]
    worker.changes("init")
    if rank == 0:
        infos = [_info(held, name, first, whole) for (name, first), (*_, whole) in zip(pairs, mine, strict=True)]
        call = _to_servers(worker, infos, dict(pairs), round)
        worker.connections.wait(call, f"init of {counted(len(pairs), 'key')}")
    told, held.bound = _of_rank_0(worker, mine, held.bound)
    roots = {k: rest for k, *rest in told}
    _check_same(rank, roots, dict(pairs))
    infos = []
    for name, first in pairs:
        *about, whole = roots[name]
        if about != _about(first):
            raise ArrayError(f"key {name!r}: rank 0 initialised {_said(*about)}, rank {rank} {_said(*_about(first))}")
        infos.append(_info(held, name, first, whole))
    _ask_rounds(worker, infos)
    for info in infos:
        held.add(info)


def _check_same(rank: int, theirs: Mapping[Key, object], mine: Mapping[Key, object]) -> None:
    """Raises ArrayError if a worker has given values to other keys than rank 0 in the same call."""

    def shown(keys: Mapping[Key, object]) -> str:
        return (", ".join(map(repr, list(keys)[:SHOWN])) or "no key") + " ..." * (len(keys) > SHOWN)

    for key in (*mine, *theirs):
        if key not in theirs or key not in mine:
            raise ArrayError(
                f"key {key!r}: rank 0 initialised {shown(theirs)} here, rank {rank} {shown(mine)}: workers initialise"
                " the same keys in the same order"
            )


def _ask_rounds(worker: Worker, infos: list[KeyInfo]) -> None:
    """Numbers the worker's pushes from the rounds of the servers on: of all, if the job is taken up
    again, or of one."""
    least = worker.member.welcome.goes_on == -1
    found: dict[Key, list[int]] = {info.key: [] for info in infos}
    call, asked = Call(), [(stripe.server, info) for info in infos for stripe in info.layout.stripes]
    for server in dict.fromkeys(server for server, _ in asked):
        rest = [info for each, info in asked if each == server]
        while rest:
            part = rest[: max(1, fitting(info.key for info in rest))]
            rest = rest[len(part) :]

            def sink(answer: m.Present, part: list[KeyInfo] = part) -> None:
                for info, present in zip(part, answer.rounds, strict=True):
                    found[info.key].append(present)

            worker.connections.send(server, m.Rounds(0, [info.key for info in part]), call, sink)
    worker.connections.wait(call, f"the rounds of {counted(len(infos), 'key')}")
    for info in infos:
        info.round = (min if least else max)(found[info.key])


def tell_rounds(session: Session, server: int, infos: list[KeyInfo]) -> None:
    """Tells a server that was started again which pushes of this worker it had taken; those on
    their way are yet to be."""
    channel = session.channels[server]
    open_rounds: dict[Key, int] = {}
    for request in (*channel.pending.values(), *channel.backlog):
        message = request.message
        if isinstance(message, m.Push | m.PushRows):
            for key in message.keys if isinstance(message, m.Push) else [message.key]:
                open_rounds[key] = min(message.round, open_rounds.get(key, message.round))
    rest = [info for info in infos if info.round and any(stripe.server == server for stripe in info.layout.stripes)]
    while rest:
        part = rest[: max(1, fitting(info.key for info in rest))]
        rest = rest[len(part) :]
        pushed = [open_rounds.get(info.key, info.round + 1) - 1 for info in part]
        question = m.Rounds(0, [info.key for info in part], pushed)
        session.send(server, question, sink=lambda present: session.told_lost(server, present.lost))


def _of_rank_0(worker: Worker, mine: list[Any], bound: int) -> tuple[list[Any], int]:
    """Rank 0's `mine`, sent to all workers in as many barriers as it takes: no message grows with
    the number of keys. And its `bound`."""
    found: list[Any] = []
    rest, more = mine, True
    while more:
        part = rest[: max(1, fitting(k for k, *_ in rest))]
        rest = rest[len(part) :]
        answer = worker.barrier([part, bool(rest), bound] if worker.member.rank == 0 else None)
        if answer is None:  # an asynchronous job waits for its living workers only
            raise KVStoreError("init: worker 0, whose values the keys begin with, has ended before it gave them")
        told, more, bound = answer
        found += told
    return found, bound


def _to_servers(worker: Worker, infos: list[KeyInfo], values: dict[Key, Array], round: int) -> Call:
    """Sends servers the first values of keys. The result waits for their answers."""
    call, dense = Call(), []
    for info in infos:
        value = values[info.key]
        if info.table is None:
            values[info.key] = np.ascontiguousarray(value)
            dense.append(info)
        else:
            rows.init(worker.connections, info, None if isinstance(value, Table) else value, round, call)
    for item in plan(dense, shapes=True):
        stripes = [next(s for s in info.layout.stripes if s.server == item.server) for info in item.infos]
        shapes = [[s.stop - s.start, *info.layout.unit_shape] for s, info in zip(stripes, item.infos, strict=True)]
        wholes, frame = [list(info.shape) for info in item.infos], wire.bytes_of(gather(item, values))
        message = m.Init(0, item.keys, wire.name_of(item.dtype), shapes, wholes, stripes[0].start, item.piece, round,
                         [frame])  # fmt: skip
        worker.connections.send(item.server, message, call, nbytes=item.nbytes)
    return call


def _by_rows(value: object) -> bool:
    return isinstance(value, RowSparse | Table)


def _declared(value: object) -> Table | None:
    """The table that a first value is, or that it has rows of, as those of a checkpoint."""
    if isinstance(value, RowSparse):
        return None if value.initial is None else value.initial.table
    return value if isinstance(value, Table) else None


def _about(value: Array) -> list[Any]:
    """What workers must agree in: dtype, shape, and for a table everything else."""
    declared = _declared(value)
    kind = declared.plain() if declared is not None else "row-sparse" if isinstance(value, RowSparse) else None
    return [wire.name_of(value.dtype), list(value.shape), kind]


def _said(dtype: object, shape: object, kind: object) -> str:
    if isinstance(kind, dict):
        return repr(Table.of(kind))
    return f"{kind} {dtype} of shape {shape}" if kind else f"{dtype} of shape {shape}"


def _info(held: Held, key: Key, value: Array, whole: bool) -> KeyInfo:
    if not _by_rows(value):
        return held.info(key, value, whole)
    declared = _declared(value)
    if declared is not None:
        return held.info_by_rows(key, declared, True, whole)
    return held.info_by_rows(key, table(value.shape, value.dtype), False, whole)


def _prepared(value: Array, key: Key) -> Array | Table:
    """A first value as it is sent. Raises if servers can't hold it."""
    if isinstance(value, RowSparse):
        value = arrays.to_device_of(value, np.empty(0))
    elif not isinstance(value, Table | RowSparse):
        value = value.get() if arrays.is_cupy(value) else value
    if not arrays.dtype_name(value.dtype):
        names = ", ".join(arrays.DTYPES.values())
        raise ArrayTypeError(f"key {key!r}: servers hold {names}, got {value.dtype}")
    if _by_rows(value):
        row = math.prod(value.shape[1:]) * value.dtype.itemsize
        if row > wire.ROW_BYTES:
            raise ArrayError(
                f"key {key!r}: servers hold rows of at most {counted(wire.ROW_BYTES, 'byte')}, these have {row}"
            )
        return value
    return value.astype(value.dtype.newbyteorder("="), copy=False)
