"""Optimizer states of a distributed store as a document: the parts of all servers joined, and cut again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import Meta
from mxopt.kvstore.placement import Stripe, needs_whole
from mxopt.kvstore.values import Key
from mxopt.optimizer import Optimizer
from mxopt.optimizer.base import Index
from mxopt.optimizer.states import Described, Loaded, dump
from mxopt.sparse import RowSparse
from mxopt.sparse.making import joined_rows, some_rows


def save(connections: Connections, metas: Mapping[Key, Meta], optimizer: Optimizer, dump_optimizer: bool) -> bytes:
    """The states of all keys as a document, with the servers' update counts."""
    found: dict[Any, Any] = {}
    counts: dict[Any, int] = {}
    num_update = optimizer.begin_num_update
    for meta in metas.values():
        documents = [_fetch(connections, meta, stripe) for stripe in meta.layout.stripes]
        num_update = max([num_update, *(d["num_update"] for d in documents)])
        if documents[0]["count"] is not None:
            counts[meta.key] = documents[0]["count"]
        if all("state" in d for d in documents):
            found[meta.key] = _join([d["state"] for d in documents], meta)
    held = optimizer.get_counts()
    try:
        optimizer.set_counts({**held, "num_update": num_update, "devices": {0: counts}})
        return dump(found, optimizer, known(metas), dump_optimizer)
    finally:
        optimizer.set_counts(held)


def known(metas: Mapping[Key, Meta]) -> dict[Index, Described]:
    """What is known of the parameters that these keys are."""
    return {key: Described(None, meta.shape, str(meta.dtype)) for key, meta in metas.items()}


def check(loaded: Loaded, metas: Mapping[Key, Meta], optimizer: Optimizer | None) -> None:
    """Raises StatesError where servers with these keys can't go on from `loaded`, by `optimizer` if it is another."""
    unknown = [key for key in loaded.states if key not in metas]
    if unknown:
        raise StatesError(f"there are states of key {unknown[0]!r}, which this store hasn't")
    if any(len(meta.layout.stripes) > 1 and needs_whole(optimizer, meta.layout.by_rows) for meta in metas.values()):
        raise StatesError(f"{optimizer!r} needs whole arrays, but keys are striped over the servers")


def load(connections: Connections, metas: Mapping[Key, Meta], loaded: Loaded, number: int) -> None:
    """Gives the servers the states of the worker's load of this number."""
    for meta in metas.values():
        for stripe in meta.layout.stripes:
            content: dict[str, Any] = {"count": loaded.key_counts.get(meta.key)}
            if meta.key in loaded.states:
                content["state"] = _cut(loaded.states[meta.key], meta, stripe)
            _store(connections, meta, stripe, dump_document(content), number)


def _fetch(connections: Connections, meta: Meta, stripe: Stripe) -> dict[str, Any]:
    def ask(offset: int) -> m.FetchStates:
        return m.FetchStates(0, meta.key, offset)

    return load_document(connections.document(stripe.server, ask, f"the states of key {meta.key!r}"))


def _store(connections: Connections, meta: Meta, stripe: Stripe, document: bytes, number: int) -> None:
    call = Call()
    for offset in range(0, len(document), wire.CHUNK):
        part = document[offset : offset + wire.CHUNK]
        message = m.StoreStates(0, number, meta.key, offset, len(document), [part])
        connections.send(stripe.server, message, call, None, len(part))
    connections.wait(call, f"the states of key {meta.key!r} to be taken")


def _join(parts: list[Any], meta: Meta) -> Any:
    """The states of stripes as one, in the same nesting."""
    first = parts[0]
    if isinstance(first, tuple | list):
        return type(first)(_join(list(each), meta) for each in zip(*parts, strict=True))
    if isinstance(first, RowSparse):
        return joined_rows(parts)
    if not isinstance(first, np.ndarray):
        return first
    joined = first if len(parts) == 1 else np.concatenate(parts)
    return joined.reshape(meta.shape) if joined.size == meta.size else joined


def _cut(state: Any, meta: Meta, stripe: Stripe) -> Any:
    """The part of a state that belongs to a stripe."""
    if isinstance(state, tuple | list):
        return type(state)(_cut(each, meta, stripe) for each in state)
    if isinstance(state, RowSparse):
        servers = len(meta.layout.stripes)
        return state if servers == 1 else some_rows(state, lambda ids: ids % servers == stripe.server)
    if not isinstance(state, np.ndarray) or state.size != meta.size:
        return state
    if len(meta.layout.stripes) == 1 and stripe.pieces == 1:
        return state.reshape(meta.shape)
    units = state.reshape(-1, *meta.layout.unit_shape)
    return np.array(units[stripe.start : stripe.stop])
