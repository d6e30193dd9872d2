"""Updates the parts of a round once it is complete."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from mxopt.errors import KVStoreError, MXOptError
from mxopt.kvstore.progress import Progress
from mxopt.sparse import RowSparse
from mxopt.typing import Array
from mxopt_server.contributions import ALL
from mxopt_server.entries import Entry, Group, Part
from mxopt_server.moment import Moment
from mxopt_server.records import Update
from mxopt_server.served import Served
from mxopt_server.values import Values

log = logging.getLogger("mxopt.server")


class Applier:
    """Applies rounds to the parts of `values` by the optimizer of `served`."""

    def __init__(self, values: Values, served: Served) -> None:
        self.values, self.served, self.members = values, served, values.members
        self.updates = 0
        self.moment: Moment | None = None  # the state of which a snapshot is being written
        self.progress = Progress()  # of the loop that calls this

    def update(self, record: Update) -> None:
        """Applies the pushes of a round that is over. If that fails, the round keeps the error."""
        values, keys, error = self.values, record.keys, record.error
        group = values.groups.get(keys) or values.group(keys, values.parts_of(keys))
        assert group is not None  # where a record is read again, nothing of other groups is open
        if error is None:
            try:
                self.apply(group, record.value, record.rank, record.update)
            except MemoryError:
                raise
            except Exception as failure:
                error = plain_error(failure)
        group.rounds.end(record.rank, record.number, error)
        if error is not None:
            self._fail(group.parts[0].entry, record, error)

    def _fail(self, entry: Entry, record: Update, error: Exception) -> None:
        """Makes an update that needs the whole array fail for all its pieces."""
        if entry.pieces > 1 and self.served.whole:
            entry.sums.pop(record.rank, None)
            entry.arrived.pop(record.rank, None)
            for part in entry.parts:
                if part.group is not None:
                    part.group.rounds.fail(record.rank, record.number, error)

    def apply(self, group: Group, value: Array, worker: int, update: int) -> None:
        """Updates a group's parts by `value`, pushed by one worker or summed over ALL, or keeps it
        until the other pieces have come. `update` is the update's number if a worker counts them,
        else 0."""
        served = self.served
        if self.moment is not None:
            self.moment.keep(group.parts[0].entry.parts if served.whole else group.parts)
            if isinstance(value, RowSparse) and group.parts[0].entry.by_rows:
                self.moment.keep_rows(group.parts[0], value.indices)
        if served.updater is None:
            self._replace(group, value)
            return
        optimizer = served.updater.optimizer
        if not update or optimizer.own_num_update:
            self._update(group, value, worker)
            return
        latest = optimizer.num_update
        optimizer.num_update = optimizer.begin_num_update + update  # of this push, which may have overtaken others
        try:
            self._update(group, value, worker)
        finally:
            optimizer.num_update = max(latest, optimizer.num_update)

    def _update(self, group: Group, value: Array, worker: int) -> None:
        part = group.parts[0]
        entry, several = part.entry, len(group.parts) > 1
        if entry.pieces > 1 and self.served.whole:
            if several:
                self._update_all(entry, value, worker)
            else:
                self._assemble(part, value, worker)
        elif entry.pieces > 1 and several:
            self._update_rows(entry, value, worker)
        elif several:
            self._call(group.indices, group.split(value), group.weights, worker)
        else:
            if entry.pieces > 1:
                self.served.states.cut_states(entry)
            self._call([part.index], [_shaped(value, part.shape)], [part.weight], worker)

    def _update_rows(self, entry: Entry, rows: RowSparse, worker: int) -> None:
        """Updates all parts of an entry in one call, and counts that for each."""
        served = self.served
        served.states.cut_states(entry)
        count = served.states.count(entry)
        if count is not None:
            served.states.set_count(entry, count)
        self._call([entry.key], [_shaped(rows, entry.weight.shape)], [entry.weight], worker)
        assert served.updater is not None
        count = served.updater.optimizer.count(entry.key)
        if count is not None:
            served.states.set_count(entry, count)

    def _update_all(self, entry: Entry, value: object, worker: int) -> None:
        """Updates an entry whose optimizer needs the whole array, all of which is here."""
        self._call([entry.key], [_shaped(value, entry.whole)], [entry.weight.reshape(entry.whole)], worker)

    def _assemble(self, part: Part, value: Array, worker: int) -> None:
        """Keeps the sum of a piece until all pieces have come, then updates the whole."""
        entry = part.entry
        if isinstance(value, RowSparse):
            value = value.todense()
        if worker not in entry.sums:
            entry.sums[worker] = np.empty(entry.weight.shape, value.dtype)
            entry.arrived[worker] = 0
        entry.sums[worker][part.start : part.stop] = value.reshape(part.shape)
        entry.arrived[worker] += 1
        if entry.arrived[worker] < entry.pieces:
            return
        gradient = entry.sums.pop(worker)
        del entry.arrived[worker]
        self._update_all(entry, gradient, worker)

    def _call(self, indices: list[Any], grads: list[Array], weights: list[Array], worker: int) -> None:
        """Calls the updater, with the worker's own states if the optimizer has such."""
        updater = self.served.updater
        assert updater is not None
        self.updates += 1
        if worker != ALL and updater.optimizer.per_worker_state is not None and self.members.workers > 1:
            for index, weight in zip(indices, weights, strict=True):
                self.served.states.lend(index, worker, weight, range(self.members.workers))
        progress = self.progress
        progress.call = "an update of key", indices[0]
        try:
            if len(indices) == 1:
                updater(indices[0], grads[0], weights[0])
            else:
                updater(indices, grads, weights)
        finally:
            progress.call = None
            progress.count += 1

    def _replace(self, group: Group, value: Array) -> None:
        """Makes the sum the new value, as there is no optimizer."""
        self.updates += 1
        if not isinstance(value, RowSparse):
            for weight, part in zip(group.weights, group.split(value), strict=True):
                weight[...] = part
            return
        whole = group.parts[0].entry if len(group.parts) > 1 else group.parts[0]
        if isinstance(whole.weight, RowSparse):
            rows = _shaped(value, whole.weight.shape)
            if whole.weight.initial is not None:
                whole.weight.write(rows.data, rows.indices)
            else:
                whole.weight[:] = rows
            return
        whole.weight[...] = value.todense().reshape(whole.weight.shape)


def _shaped(value: Array, shape: tuple[int, ...]) -> Array:
    """A flat gradient, or one of rows, as one of `shape`."""
    if value.shape == shape:
        return value
    if isinstance(value, RowSparse):
        return RowSparse(value.data.reshape(len(value.indices), *shape[1:]), value.indices, shape)
    return value.reshape(shape)


def plain_error(error: Exception) -> MXOptError:
    """An exception as one that can be sent and saved, by its type and text."""
    if isinstance(error, MXOptError):
        return error
    log.error("a record failed", exc_info=error)
    return KVStoreError(f"{type(error).__name__}: {error}")
