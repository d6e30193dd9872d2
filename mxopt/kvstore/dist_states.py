"""Optimizer states of a distributed store in a file: the parts of all servers joined, and cut again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mxopt.document import dump_document, load_document, write_file
from mxopt.errors import StatesError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.kvstore.exchange import Meta
from mxopt.kvstore.placement import Stripe, needs_whole
from mxopt.kvstore.session import Call
from mxopt.optimizer import states as updater_states

if TYPE_CHECKING:
    from mxopt.kvstore.dist import DistKVStore


def save(store: DistKVStore, fname: str, dump_optimizer: bool) -> None:
    """Writes the states of all keys to a file."""
    optimizer = store._optimizer
    if optimizer is None:
        raise AssertionError("there are no states to save: this worker has not called set_optimizer")
    found: dict[Any, Any] = {}
    counts: dict[Any, int] = {}
    num_update = optimizer.begin_num_update
    for meta in store._held.metas.values():
        documents = [_fetch(store, meta, stripe) for stripe in meta.layout.stripes]
        num_update = max([num_update, *(d["num_update"] for d in documents)])
        if documents[0]["count"] is not None:
            counts[meta.key] = documents[0]["count"]
        if all("state" in d for d in documents):
            found[meta.key] = _join([d["state"] for d in documents], meta)
    held = optimizer.get_counts()
    try:
        optimizer.set_counts({**held, "num_update": num_update, "devices": {0: counts}})
        document = updater_states.dump(found, optimizer, dump_optimizer)
    finally:
        optimizer.set_counts(held)
    write_file(fname, document)


def load(store: DistKVStore, fname: str) -> None:
    """Gives the servers the states of a file."""
    if store._optimizer is None:
        raise AssertionError("there is nothing to load the states into: call set_optimizer first")
    loaded = updater_states.load(Path(fname).read_bytes())
    optimizer = loaded.make_optimizer()
    unknown = [k for k in loaded.states if k not in store._held.metas]
    if unknown:
        raise StatesError(f"{fname} has states of key {unknown[0]!r}, which this store hasn't")
    if optimizer is not None:
        optimizer = store._optimizer.replaced_by(optimizer)
        if needs_whole(optimizer) and any(len(x.layout.stripes) > 1 for x in store._held.metas.values()):
            raise StatesError(f"{optimizer!r} needs whole arrays, but keys are striped over the servers")
        store.set_optimizer(optimizer)
    store._loads += 1
    counts = loaded.counts.get("devices", {}).get(0, {})
    for meta in store._held.metas.values():
        for stripe in meta.layout.stripes:
            content: dict[str, Any] = {"count": counts.get(meta.key)}
            if meta.key in loaded.states:
                content["state"] = _cut(loaded.states[meta.key], meta, stripe)
            _store(store, meta, stripe, dump_document(content))
    assert store._followed is not None
    store._followed.restore(counts)
    if optimizer is not None:
        loaded.restore_counts(optimizer)


def _fetch(store: DistKVStore, meta: Meta, stripe: Stripe) -> dict[str, Any]:
    parts: list[bytes] = []
    size, whole = 0, 1
    while size < whole:
        answers: list[m.Chunk] = []
        call = Call()
        store._connections.send(stripe.server, m.FetchStates(0, meta.key, size), call, answers.append, wire.CHUNK)
        store._connections.wait(call, f"the states of key {meta.key!r}")
        frame: Any = answers[0].data[0]
        part = bytes(getattr(frame, "buffer", frame))
        if not part:
            raise StatesError(f"server {stripe.server} sent the states of key {meta.key!r} only in part")
        parts.append(part)
        size, whole = size + len(part), answers[0].total
    return load_document(b"".join(parts))


def _store(store: DistKVStore, meta: Meta, stripe: Stripe, document: bytes) -> None:
    call = Call()
    for offset in range(0, len(document), wire.CHUNK):
        part = document[offset : offset + wire.CHUNK]
        message = m.StoreStates(0, store._loads, meta.key, offset, len(document), [part])
        store._connections.send(stripe.server, message, call, None, len(part))
    store._connections.wait(call, f"the states of key {meta.key!r} to be taken")


def _join(parts: list[Any], meta: Meta) -> Any:
    """The states of stripes as one, in the same nesting."""
    first = parts[0]
    if isinstance(first, tuple | list):
        return type(first)(_join(list(each), meta) for each in zip(*parts, strict=True))
    if not isinstance(first, np.ndarray):
        return first
    joined = first if len(parts) == 1 else np.concatenate(parts)
    return joined.reshape(meta.shape) if joined.size == meta.size else joined


def _cut(state: Any, meta: Meta, stripe: Stripe) -> Any:
    """The part of a state that belongs to a stripe."""
    if isinstance(state, tuple | list):
        return type(state)(_cut(each, meta, stripe) for each in state)
    if not isinstance(state, np.ndarray) or state.size != meta.size:
        return state
    if len(meta.layout.stripes) == 1 and stripe.pieces == 1:
        return state.reshape(meta.shape)
    units = state.reshape(-1, *meta.layout.unit_shape)
    return np.array(units[stripe.start : stripe.stop])
