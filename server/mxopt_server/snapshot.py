"""Snapshots: everything that a server needs to continue, as one document.

It holds values, optimizer states and counts, the optimizer, and which rounds they contain. It
doesn't hold pushes of incomplete rounds: workers send them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mxopt.document import load_document
from mxopt.errors import MXOptError, StatesError
from mxopt.sparse import RowSparse, Table
from mxopt.sparse.array import as_now
from mxopt.typing import Array, Plain
from mxopt_server.entries import Entry, Part, PartIndex
from mxopt_server.moment import Moment
from mxopt_server.server import Server
from mxopt_server.states import ABSENT
from mxopt_server.tables import TableEntry

log = logging.getLogger("mxopt.server")

KIND, VERSION = "mxopt-server snapshot", 3


def record(server: Server) -> Plain:
    """The content of a snapshot. Its arrays are the server's own, not copies; all else is the
    record's alone."""
    members = server.members
    return {
        "kind": KIND, "version": VERSION, "job": server.job, "rank": server.rank, "workers": members.workers,
        "mode": members.mode, "staleness": members.staleness, "epochs": [list(pair) for pair in members.epochs.items()],
        "lost": members.lost,
        "entries": [_entry(server, entry) for entry in server.values.entries.values()],
        "optimizer": server.served.record(),
    }  # fmt: skip


def moment(server: Server) -> Moment:
    """The arrays of a record that change while the server goes on."""
    served = server.served
    found: list[tuple[list[Part], Array]] = []
    for entry in server.values.entries.values():
        found.append((entry.parts, entry.weight))
        state = served.states.state(entry)
        found += [(entry.parts, array) for array in ([] if state is ABSENT else _arrays(state))]
    for (index, _), array in served.states.own.items():
        entry = server.values.entries[index.key if isinstance(index, PartIndex) else index]
        found.append(([entry.parts[index.piece]] if isinstance(index, PartIndex) else entry.parts, array))
    plain, by_rows = [], []
    for parts, array in found:
        rows = array.as_they_lie()[0] if isinstance(array, RowSparse) else array
        if isinstance(array, RowSparse) and array.slots is not None and parts:
            by_rows.append((parts[0], array.slots.index, [rows]))
        else:
            plain.append((parts, rows))
    return Moment([pair for pair in plain if pair[0]], by_rows)


def nbytes(server: Server) -> int:
    """The bytes of values and states."""
    entries = server.values.entries.values()
    states = (array for entry in entries for array in _arrays(server.served.states.state(entry)))
    return sum([*(entry.nbytes for entry in entries), *(array.nbytes for array in states)])


def _arrays(state: object) -> Iterator[Array]:
    """The arrays in a state, also row-sparse ones."""
    if isinstance(state, np.ndarray | RowSparse):
        yield state
    for each in state if isinstance(state, tuple | list) else ():
        yield from _arrays(each)


def restore(server: Server, path: Path) -> Plain:
    """Makes a fresh `server` what the snapshot at `path` says. Returns what that has beside values
    and states; {} where there is none.

    The values and states count for any job; rounds and the workers' epochs for the same job only.
    Raises StatesError, which names the file, where it is damaged, another server's, or of an
    optimizer that this one doesn't know.
    """
    if not path.exists():
        return {}
    try:
        content = load_document(path.read_bytes())
        _take(server, content)
    except MemoryError:
        raise
    except Exception as error:  # with a right checksum it is a writer's mistake, of any kind
        why = error if isinstance(error, MXOptError | OSError) else repr(error)
        raise StatesError(f"the snapshot {path} can't be taken: {why}") from error
    log.info("carries on from %s: %d keys", path, len(server.values.entries))
    return {name: value for name, value in content.items() if name != "entries"}


def _take(server: Server, content: Plain) -> None:
    if content.get("kind") != KIND or content.get("version") != VERSION:
        raise StatesError("it is none of this version of mxopt-server")
    if content["rank"] != server.rank:
        raise StatesError(f"it is that of server {content['rank']}, this is server {server.rank}")
    same_job = content["job"] == server.job and content["workers"] == server.members.workers
    optimizer = content["optimizer"]
    server.served.install(optimizer["config"])
    for saved in content["entries"]:
        _restore_entry(server, saved, same_job)
    server.served.restore(optimizer, same_job)
    if same_job:
        server.members.mode, server.members.staleness = content["mode"], content["staleness"]
        server.members.epochs.update(content["epochs"])
        server.members.lost, server.members.lossy = content["lost"], server.journal is None
        for saved in content["entries"]:
            _restore_rounds(server, saved)


def _entry(server: Server, entry: Entry) -> Plain:
    found: Plain = {
        "key": entry.key, "dtype": entry.dtype, "shape": list(entry.shape), "whole": list(entry.whole),
        "first": entry.first, "round": entry.round, "have": len(entry.parts), "weight": as_now(entry.weight),
        "sums": [[rank, entry.arrived[rank], array] for rank, array in entry.sums.items()],
        "loads": server.served.states.loads.get(entry.key, 0), "rounds": [_rounds(part) for part in entry.parts],
    }  # fmt: skip
    if isinstance(entry, TableEntry):
        found |= {"table": entry.table.plain(), "servers": entry.servers, "have": entry.have, "total": entry.total}
    state = server.served.states.state(entry)
    return found if state is ABSENT else {**found, "state": as_now(state)}


def _restore_entry(server: Server, saved: Plain, same_job: bool) -> None:
    entry: Entry
    begun = saved["round"] if same_job else 0
    if "table" in saved:
        declared = saved["weight"].initial is not None
        table = Table.of(saved["table"])
        entry = TableEntry(saved["key"], table, declared, saved["servers"], begun, saved["total"])
        data, ids = saved["weight"].parts()
        entry.take(data, ids, saved["have"])
    else:
        entry = Entry(saved["key"], saved["dtype"], saved["shape"], saved["whole"], saved["first"], begun)
    if not same_job and not (entry.complete if "table" in saved else saved["have"] == entry.pieces):
        return
    if not entry.by_rows:
        entry.restore(saved["weight"], saved["have"])
    server.values.entries[entry.key] = entry
    if server.served.updater is not None and entry.complete:
        server.served.states.set_state(entry, saved.get("state", ABSENT))
        server.served.name_parts(entry)
    if same_job:
        server.served.states.loads[entry.key] = saved["loads"]
        entry.arrived = {rank: arrived for rank, arrived, _ in saved["sums"]}
        entry.sums = {rank: array for rank, _, array in saved["sums"]}


def _rounds(part: Part) -> Plain | None:
    return None if part.group is None else part.group.rounds.record()


def _restore_rounds(server: Server, saved: Plain) -> None:
    for part, rounds in zip(server.values.entries[saved["key"]].parts, saved["rounds"], strict=True):
        if rounds is not None:
            group = server.values.group(((part.entry.key, part.piece),), [part])
            assert group is not None
            group.rounds.restore(rounds)
