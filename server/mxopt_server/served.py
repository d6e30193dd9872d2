"""The optimizer of a server, and the changes of its hyper-parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from mxopt.arguments import attribute_of
from mxopt.errors import KVStoreError, MXOptError
from mxopt.kvstore import messages as m
from mxopt.kvstore.placement import needs_whole
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.wire import Key
from mxopt.optimizer import Optimizer, Updater
from mxopt.optimizer.config import make_optimizer
from mxopt.typing import Document, Plain
from mxopt_server.entries import Entry
from mxopt_server.states import States
from mxopt_server.told import Told, digest

log = logging.getLogger("mxopt.server")


class Served:
    """The workers' optimizer, for all `entries`.

    Attributes
    ----------
    whole : whether it needs whole arrays
    states : its states of the entries
    """

    def __init__(self, entries: Mapping[Key, Entry]) -> None:
        self.entries = entries
        self.updater: Updater | None = None
        self.config: Plain | None = None
        self.whole = False
        self.digest = digest(None)  # of the config
        self.version = 0  # changes of the config so far
        self.event = 0  # calls of set_optimizer so far
        self.given: Plain | None = None  # the config of the last of them
        self.refused: MXOptError | None = None  # why the last of them was
        self.states = States(entries)

    def set_optimizer(self, event: int, config: Plain | None) -> None:
        """Installs an optimizer with no states, unless a worker's call of this number did so
        already."""
        if event == self.event and self.refused is not None:
            raise self.refused
        if event <= self.event:
            return
        if event > self.event + 1:
            raise KVStoreError(
                f"this is the workers' set_optimizer number {event}, and number {self.event} is the last that this"
                " server knows of"
            )
        self.event, self.given, self.refused = event, config, None
        try:
            self.install(config)
        except MXOptError as error:
            self.refused = error  # to the other workers' calls of this number too
            raise

    def install(self, config: Plain | None) -> None:
        """Makes the optimizer of a config. Raises if it can't update the entries."""
        optimizer = None if config is None else make_optimizer(config)
        whole = needs_whole(optimizer)
        for entry in self.entries.values():
            if needs_whole(optimizer, entry.by_rows) and not entry.is_all:
                raise KVStoreError(
                    f"{optimizer!r} needs whole arrays, but key {entry.key!r} is striped over the servers:"
                    " call set_optimizer before init"
                )
        self.updater = None if optimizer is None else Updater(optimizer)
        self.config, self.whole = config, whole
        self.states.begin(self.updater, whole)
        self.digest = digest(config)
        for entry in self.entries.values():
            self.name_parts(entry)
        log.info("optimizer: %r", optimizer)

    def reconfigure(self, config: Plain, apart: bool = False) -> None:
        """Takes over changed hyper-parameters; states and counts stay. `apart`: each worker's push
        is an update of its own."""
        if config == self.config or self.updater is None:
            return
        made, kept = make_optimizer(config), self.updater.optimizer
        if type(made) is not type(kept) or needs_whole(made) != self.whole:
            raise KVStoreError(f"a {type(kept).__name__} can't become {made!r} between pushes: call set_optimizer")
        for name in config["arguments"]:
            attribute = attribute_of(type(kept), name)
            setattr(kept, attribute, getattr(made, attribute))
        if apart:
            self._count_from_here(config, made, kept)
        kept.lr_scheduler, kept.idx2name = made.lr_scheduler, made.idx2name
        kept.lr_mult, kept.wd_mult = made.lr_mult, made.wd_mult
        for entry in self.entries.values():
            self.name_parts(entry)
        self.config, self.digest = config, digest(config)

    def _count_from_here(self, config: Document, made: Optimizer, kept: Optimizer) -> None:
        """Lets a rate that a worker assigned to its schedule count from the present update here: a
        worker counts only its own pushes."""
        schedule, before = made.lr_scheduler, kept.lr_scheduler
        if schedule is None or self.config is None:
            return
        schedule.reach(kept.num_update)
        rate, since = schedule.assigned
        if before is not None and config["scheduler"] == self.config["scheduler"]:
            schedule.assigned = before.assigned
        elif since:
            schedule.assigned = (rate, max(since, kept.num_update))

    def standing(self, told: Told | None) -> Plain:
        """The optimizer as it stands, the number of its changes, and how often each key has been
        updated: where `told` is what the last call of `set_optimizer` gave, as a worker says it
        again in a job that was taken up again, and there have been updates since. Else nothing."""
        optimizer = None if self.updater is None else self.updater.optimizer
        again = told is not None and told.event == self.event and told.is_given(self.given)
        if not again or optimizer is None or optimizer.num_update == optimizer.begin_num_update:
            return {}
        counts = [[key, self.states.count(entry)] for key, entry in self.entries.items()]
        return {"config": self.config, "version": self.version, "counts": counts}

    def name_parts(self, entry: Entry) -> None:
        """Gives a key's name and multipliers to its parts too, and tells the optimizer where in the
        array they are."""
        if self.updater is None:
            return
        optimizer, unit = self.updater.optimizer, math.prod(entry.shape[1:])
        optimizer.parts[entry.key] = entry.key, entry.first * unit
        optimizer.parts.update({p.index: (entry.key, (entry.first + p.start) * unit) for p in entry.parts})
        if entry.pieces == 1:
            return
        tables: tuple[dict[Any, Any], ...] = (optimizer.idx2name, optimizer.lr_mult, optimizer.wd_mult)
        for values in tables:
            if entry.key in values:
                values.update(dict.fromkeys((part.index for part in entry.parts), values[entry.key]))

    # For a snapshot.

    def record(self) -> Plain:
        """What isn't the state of an entry, as plain data and arrays."""
        refused = self.refused and [type(self.refused).__name__, str(self.refused)]
        schedule = None if self.updater is None else self.updater.optimizer.lr_scheduler
        assigned = None if schedule is None else list(schedule.assigned)
        which = {
            "event": self.event,
            "given": self.given,
            "version": self.version,
            "refused": refused,
            "config": self.config,
        }
        return which | {"assigned": assigned} | self.states.record()

    def restore(self, saved: Document, same_job: bool) -> None:
        """Takes over a record, once the entries and their states are there; events and what is a
        worker's own only of the same job."""
        self.states.restore(saved, same_job)
        schedule = None if self.updater is None else self.updater.optimizer.lr_scheduler
        if schedule is not None and saved["assigned"] is not None:
            rate, since = saved["assigned"]
            schedule.assigned = (rate, since)
        if same_job:
            self.event, self.given, self.version = saved["event"], saved["given"], saved["version"]
            code, text = saved["refused"] or ("", "")
            self.refused = error_of(m.Refused(0, code, text, None)) if code else None
