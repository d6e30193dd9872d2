"""Snapshots: everything a server needs to carry on, in one record of the states' format.

Weights, optimizer states and counts, the optimizer, how far each worker's requests have come, and what has been
pushed for rounds
that are not complete. Written to a temporary name, synced, renamed: there is always one whole snapshot.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mxopt.document import dump_document, load_document, write_file
from mxopt.errors import StatesError
from mxopt.kvstore import messages as m
from mxopt.sparse import RowSparse
from mxopt_server.entries import Entry, Part
from mxopt_server.rounds import Contribution
from mxopt_server.server import Rows, Server, Worker
from mxopt_server.table import ABSENT, Table

log = logging.getLogger("mxopt.server")

VERSION = 2


def save(server: Server, path: Path) -> None:
    """Writes a snapshot of `server` to `path`."""
    document = dump_document(record(server))
    write_file(path, document)


def record(server: Server) -> dict[str, Any]:
    """The content of a snapshot."""
    table = server.table
    entries = []
    for entry in table.entries.values():
        if entry.missing:
            continue
        found: dict[str, Any] = {
            "key": entry.key, "dtype": entry.dtype, "units": entry.units, "shape": _stripe_shape(entry),
            "whole": list(entry.whole), "first": entry.first, "step": entry.step, "weight": entry.weight,
            "count": table.count(entry), "loads": table.loads.get(entry.key, 0),
        }  # fmt: skip
        if table.updater is not None and entry.key in table.updater.states:
            found["state"] = table.state(entry)
        entries.append(found)
    pending = [_contribution(keys, c) for keys, g in table.groups.items() for queue in g.queues for c in queue]
    optimizer = table.updater.optimizer if table.updater else None
    return {
        "kind": "mxopt-server snapshot", "version": VERSION, "job": server.job, "rank": server.rank,
        "workers": [_worker(worker) for worker in server.workers.values()], "fenced": sorted(server.fenced),
        "number": table.workers, "mode": table.mode, "staleness": table.staleness,
        "event": table.event, "config": table.config, "num_update": optimizer.num_update if optimizer else 0,
        "counts": [[g.keys, g.counts] for g in table.groups.values()],
        "entries": entries, "pending": pending,
    }  # fmt: skip


def restore(server: Server, path: Path) -> bool:
    """Makes a fresh `server` what the snapshot at `path` says; False where there is none.

    The weights and states count for any job; the workers' sequence numbers and open rounds for the same job only.
    Raises StatesError where the snapshot is damaged, or another server's.
    """
    if not path.exists():
        return False
    content = load_document(path.read_bytes())
    if content.get("kind") != "mxopt-server snapshot" or content.get("version") != VERSION:
        raise StatesError(f"{path} is no snapshot of this version of mxopt-server")
    if content["rank"] != server.rank:
        raise StatesError(f"{path} is the snapshot of server {content['rank']}, this is server {server.rank}")
    table = server.table
    same_job = content["job"] == server.job and content["number"] == table.workers
    table.set_optimizer(1, content["config"])
    table.event = content["event"] if same_job else 0
    for saved in content["entries"]:
        entry = Entry(saved["key"], saved["dtype"], saved["shape"], saved["whole"], saved["first"], saved["step"])
        entry.weight[...] = saved["weight"]
        entry.missing = set()
        table.entries[entry.key] = entry
        if table.updater is not None:
            table.set_state(entry, saved.get("state", ABSENT), saved["count"])
            table._name_parts(table.updater.optimizer, entry)
        if same_job:
            table.loads[entry.key] = saved["loads"]
    if table.updater is not None:
        table.updater.optimizer.num_update = content["num_update"]
    server.resumed = True
    if same_job:
        server.fenced = set(content["fenced"])
        table.mode, table.staleness, server.mode_chosen = content["mode"], content["staleness"], True
        for each in content["workers"]:
            worker = Worker(each["rank"], each["incarnation"], b"")
            worker.expects = each["expects"]
            worker.rows = {key: Rows(*arrays) for key, *arrays in each["rows"]}
            worker.arriving = {key: bytearray(arrived) for key, arrived in each["arriving"]}
            for refused in each["refused"]:
                worker.refused[refused[0]] = m.Refused(*refused)
            server.workers[worker.rank] = worker
        groups = [(table.group(tuple(keys), _parts(table, keys)), counts) for keys, counts in content["counts"]]
        for each in content["pending"]:
            _push(server, each)
        for group, counts in groups:
            assert group is not None  # nothing was pending when it was made
            group.counts = list(counts)
    log.info("carries on from %s: %d keys", path, len(table.entries))
    return True


def _worker(worker: Worker) -> dict[str, Any]:
    """What carries on of a worker: its number, what has come of it in part, and what it may ask for again."""
    return {
        "rank": worker.rank, "incarnation": worker.incarnation, "expects": worker.expects,
        "rows": [[key, rows.indices, rows.data] for key, rows in worker.rows.items()],
        "arriving": [[key, bytes(arrived)] for key, arrived in worker.arriving.items()],
        "refused": [[r.seq, r.code, r.text, r.key] for r in worker.refused.values()],
    }  # fmt: skip


def _parts(table: Table, keys: tuple[Any, ...]) -> list[Part]:
    """The parts of the group that these keys name."""
    if keys[0] is None:
        return table.entry(keys[1]).parts
    if isinstance(keys[0], tuple | list):
        return table.parts([keys[0][0]], keys[0][1])
    return table.parts(list(keys), 0)


def _stripe_shape(entry: Entry) -> list[int]:
    if entry.pieces > 1 or entry.weight.shape != entry.whole:
        return list(entry.weight.shape)
    row = int(np.prod(entry.whole[1:], dtype=object))
    return [entry.units, *entry.whole[1:]] if entry.units * row == entry.weight.size and entry.whole else [entry.units]


def _contribution(keys: tuple[Any, ...], c: Contribution) -> dict[str, Any]:
    sparse = isinstance(c.value, RowSparse)
    return {
        "keys": list(keys), "rank": c.rank, "config": c.config, "update": c.update,
        "value": np.array(c.value.data if sparse else c.value),
        "rows": [c.value.indices, list(c.value.shape)] if sparse else None,
    }  # fmt: skip


def _push(server: Server, saved: dict[str, Any]) -> None:
    """Takes an open contribution of a snapshot again; nobody waits for it until its worker asks."""
    table, keys = server.table, tuple(saved["keys"])
    value = saved["value"]
    if saved["rows"] is not None:
        value = RowSparse(value, saved["rows"][0], tuple(saved["rows"][1]))
    table.push(keys, _parts(table, keys), Contribution(saved["rank"], value, saved["config"], saved["update"], None))
