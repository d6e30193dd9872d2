"""Optimizer states of a distributed store as a document: joins the parts of all servers, and cuts
them again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import KeyInfo
from mxopt.kvstore.placement import Stripe, needs_whole
from mxopt.kvstore.values import Key
from mxopt.optimizer import Optimizer
from mxopt.optimizer.base import Index
from mxopt.optimizer.states import Described, Loaded, dump
from mxopt.sparse import RowSparse
from mxopt.sparse.making import joined_rows, some_rows
from mxopt.typing import Plain, State


def save(connections: Connections, infos: Mapping[Key, KeyInfo], optimizer: Optimizer, dump_optimizer: bool) -> bytes:
    """The states of all keys as a document, with the servers' update counts."""
    found: dict[Key, State] = {}
    counts: dict[Key, int] = {}
    num_update = optimizer.begin_num_update
    for info in infos.values():
        documents = [_fetch(connections, info, stripe) for stripe in info.layout.stripes]
        num_update = max([num_update, *(d["num_update"] for d in documents)])
        if documents[0]["count"] is not None:
            counts[info.key] = documents[0]["count"]
        if all("state" in d for d in documents):
            states = [d["state"] for d in documents]
            found[info.key] = states[0] if _whole(info, optimizer) else _join(states, info)
    held = optimizer.get_counts()
    try:
        optimizer.set_counts({**held, "num_update": num_update, "devices": {0: counts}})
        return dump(found, optimizer, known(infos), dump_optimizer)
    finally:
        optimizer.set_counts(held)


def known(infos: Mapping[Key, KeyInfo]) -> dict[Index, Described]:
    """What is known of the parameters of these keys."""
    return {key: Described(None, info.shape, str(info.dtype)) for key, info in infos.items()}


def check(loaded: Loaded, infos: Mapping[Key, KeyInfo], optimizer: Optimizer | None) -> None:
    """Raises StatesError if servers with these keys can't continue from `loaded`, with `optimizer`
    if it is another."""
    unknown = [key for key in loaded.states if key not in infos]
    if unknown:
        raise StatesError(f"there are states of key {unknown[0]!r}, which this store hasn't")
    if any(len(info.layout.stripes) > 1 and needs_whole(optimizer, info.layout.by_rows) for info in infos.values()):
        raise StatesError(f"{optimizer!r} needs whole arrays, but keys are striped over the servers")


def load(
    connections: Connections, infos: Mapping[Key, KeyInfo], optimizer: Optimizer, loaded: Loaded, number: int
) -> None:
    """Sends the states of the worker's load of this number to the servers."""
    for info in infos.values():
        for stripe in info.layout.stripes:
            content: Plain = {"count": loaded.key_counts.get(info.key)}
            if info.key in loaded.states:
                state = loaded.states[info.key]
                content["state"] = state if _whole(info, optimizer) else _cut(state, info, stripe)
            _store(connections, info, stripe, dump_document(content), number)


def _fetch(connections: Connections, info: KeyInfo, stripe: Stripe) -> Plain:
    def ask(offset: int) -> m.FetchStates:
        return m.FetchStates(0, info.key, offset)

    return load_document(connections.document(stripe.server, ask, f"the states of key {info.key!r}"))


def _store(connections: Connections, info: KeyInfo, stripe: Stripe, document: bytes, number: int) -> None:
    call = Call()
    for offset in range(0, len(document), wire.CHUNK_BYTES):
        part = document[offset : offset + wire.CHUNK_BYTES]
        message = m.StoreStates(0, number, info.key, offset, len(document), [part])
        connections.send(stripe.server, message, call, None, len(part))
    connections.wait(call, f"the states of key {info.key!r} to be taken")


def _whole(info: KeyInfo, optimizer: Optimizer) -> bool:
    """Whether the key's states stay as the optimizer made them, in whatever shapes it did. Others
    are of each element, and servers may keep them in another shape than the weight's."""
    return len(info.layout.stripes) == 1 and needs_whole(optimizer, info.layout.by_rows)


def _join(parts: list[State], info: KeyInfo) -> State:
    """Joins the states of stripes, nested alike."""
    first = parts[0]
    if isinstance(first, tuple | list):
        return type(first)(_join(list(each), info) for each in zip(*parts, strict=True))
    if isinstance(first, RowSparse):  # an update of all rows has made the states of other servers' too
        return joined_rows([_own(part, info, stripe) for part, stripe in zip(parts, info.layout.stripes, strict=True)])
    if not isinstance(first, np.ndarray):
        return first
    joined = first if len(parts) == 1 else np.concatenate(parts)
    return joined.reshape(info.shape) if joined.size == info.size else joined


def _cut(state: State, info: KeyInfo, stripe: Stripe) -> State:
    """The part of a state for a stripe."""
    if isinstance(state, tuple | list):
        return type(state)(_cut(each, info, stripe) for each in state)
    if isinstance(state, RowSparse):
        return _own(state, info, stripe)
    if not isinstance(state, np.ndarray) or state.size != info.size:
        return state
    if len(info.layout.stripes) == 1 and stripe.pieces == 1:
        return state.reshape(info.shape)
    units = state.reshape(-1, *info.layout.unit_shape)
    return np.array(units[stripe.start : stripe.stop])


def _own(rows: RowSparse, info: KeyInfo, stripe: Stripe) -> RowSparse:
    """The rows that the stripe's server keeps."""
    servers = len(info.layout.stripes)
    return rows if servers == 1 else some_rows(rows, lambda ids: ids % servers == stripe.server)
