"""Follows a worker's optimizer: its changes since the servers last heard of it, and its update
counts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from operator import attrgetter, itemgetter

from mxopt import plain
from mxopt.arguments import attribute_of
from mxopt.document import load_document
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.values import Key
from mxopt.optimizer import Optimizer
from mxopt.optimizer.config import make_optimizer, optimizer_config
from mxopt.optimizer.keyed import KeyedOptimizer
from mxopt.typing import Plain

log: logging.Logger = logging.getLogger("mxopt.kvstore")


class Followed:
    """`optimizer` as servers are given it by `connections`, in call number `event` of
    set_optimizer. Configs are numbered on over all that a store follows.

    Raises StatesError if it can't be sent.
    """

    number: int
    num_update: int

    def __init__(self, optimizer: Optimizer, connections: Connections, event: int) -> None:
        self.optimizer, self._event = optimizer, event
        self.number = max(channel.config_sent for channel in connections.channels) + 1
        self._connections = connections
        config = sendable(optimizer)
        self._document = plain.pack(config)
        self._changed = False
        self.counts: dict[Key, int] = {}
        self.num_update = 0
        self._arguments = attrgetter(*(attribute_of(type(optimizer), name) for name in config["arguments"]))
        self._see()

    def look(self, keys: Iterable[Key]) -> None:
        """Notes whether hyper-parameters have changed: of multipliers those of `keys`, which are
        about to be pushed. Called before every push, so it must be quick.

        Raises ArgumentError if the optimizer has nothing to do with one of them, before anything
        is sent.
        """
        if isinstance(self.optimizer, KeyedOptimizer):
            for key in keys:
                self.optimizer.check_index(key)
            self.optimizer.prepare(max((self.counts.get(key, 0) for key in keys), default=0))
        if self._has_changed(keys):
            self._change()

    def take_over(self, made: Optimizer) -> None:
        """Lets the optimizer go on as `made`, which is like it; servers hear of it with the next
        push."""
        self.optimizer.take_over(made)
        self._change()

    def go_on(self) -> None:
        """Lets the optimizer go on as it stands on the servers of a job that was taken up again,
        where it is what `set_optimizer` had given them: with all that the job has changed since. A
        server that nothing was pushed to since a change hasn't heard of it: the one that knows of
        most counts, and tells the others with the next pushes."""
        found = [self._standing(channel.server) for channel in self._connections.channels]
        known = [each for each in found if each]
        if not known:
            return
        most = max(known, key=itemgetter("version"))
        self.take_over(make_optimizer(most["config"]))
        log.info("the job goes on with %r", self.optimizer)
        counts: dict[Key, int] = {}
        for key, count in (pair for each in known for pair in each["counts"]):
            if count is not None:
                counts[key] = max(count, counts.get(key, 0))
        self.restore(counts)

    def _standing(self, server: int) -> Plain:
        def ask(offset: int) -> m.FetchOptimizer:
            return m.FetchOptimizer(0, self.number, offset)

        return load_document(self._connections.document(server, ask, "how the optimizer stands"))

    def _change(self) -> None:
        self._document = plain.pack(sendable(self.optimizer))
        self.number += 1
        self._changed = True
        self._see()

    def tell(self, server: int) -> int:
        """Sends a server the optimizer's config, if it doesn't know it yet; returns its number."""
        channel = self._connections.channels[server]
        if channel.config_sent == self.number:
            return self.number
        drawn = self.optimizer.drawn_seed is not None and self.optimizer.drawn_seed == self.optimizer.seed
        for offset in range(0, len(self._document), wire.CHUNK_BYTES):
            part = self._document[offset : offset + wire.CHUNK_BYTES]
            message = m.Config(
                0, self.number, self._event, self._changed, 0, drawn, offset, len(self._document), [part]
            )
            self._connections.send(server, message, nbytes=len(part))
        channel.config_sent = self.number
        return self.number

    def restore(self, counts: dict[Key, int]) -> None:
        """Continues from the saved numbers of updates; the optimizer as it is now counts as
        known."""
        self.counts = {}
        self.also(counts)

    def also(self, counts: dict[Key, int]) -> None:
        """Continues these keys from their saved numbers of updates, too."""
        begin = self.optimizer.begin_num_update
        self.counts |= {key: int(n) - begin for key, n in counts.items()}
        self.num_update = max(self.counts.values(), default=0)
        self._advance_schedule(self.optimizer.last_asked(self.num_update, list(self.counts.values())))

    def count(self, keys: Iterable[Key]) -> int:
        """The number of updates after a push of `keys`, as `Optimizer.num_update` has it."""
        counts, before = self.counts, self.num_update
        for key in keys:
            before = self.num_update
            n = counts[key] = counts.get(key, 0) + 1
            if n > before:
                self.num_update = n
        self._advance_schedule(before if self.optimizer.schedules_before_counting else self.num_update)
        return self.num_update

    def _advance_schedule(self, asked: int) -> None:
        """Tells the schedule how far the servers have come, so that a rate assigned to it counts
        from there."""
        optimizer = self.optimizer
        if optimizer.lr_scheduler is not None:
            optimizer.lr_scheduler.reach(optimizer.begin_num_update + asked)

    def _see(self) -> None:
        """Remembers the optimizer as it is now as what the servers know, or are about to hear."""
        optimizer = self.optimizer
        self._seen = self._for_all()
        every = {*optimizer.param_dict, *optimizer.idx2name, *optimizer.lr_mult, *optimizer.wd_mult}
        self._owned = {key: self._own(key) for key in every}

    def _has_changed(self, keys: Iterable[Key]) -> bool:
        optimizer = self.optimizer
        if self._for_all() != self._seen:
            return True
        if not (self._owned or optimizer.param_dict or optimizer.idx2name or optimizer.lr_mult or optimizer.wd_mult):
            return False
        return any(self._own(key) != self._owned.get(key, (None, None, key)) for key in keys)

    def _for_all(self) -> object:
        """What concerns all keys."""
        scheduler = self.optimizer.lr_scheduler
        return self._arguments(self.optimizer), None if scheduler is None else scheduler.assigned

    def _own(self, key: Key) -> object:
        """What concerns one key: its multipliers and its name."""
        optimizer = self.optimizer
        param, name = optimizer.param_dict.get(key), optimizer.idx2name.get(key, key)
        if param is not None:
            return param.lr_mult, param.wd_mult, name
        lr_mult, wd_mult = optimizer.lr_mult, optimizer.wd_mult
        return lr_mult.get(key, lr_mult.get(name)), wd_mult.get(key, wd_mult.get(name)), name


def sendable(optimizer: Optimizer) -> Plain:
    """The optimizer as plain data, with the multipliers of its `param_dict`, which stays here.

    Raises StatesError if it is not registered, or keeps an argument that is no plain data.
    """
    config = optimizer_config(optimizer)
    for what in ("lr_mult", "wd_mult"):
        own = {index: float(getattr(param, what)) for index, param in optimizer.param_dict.items()}
        config[what] = [list(pair) for pair in {**dict(config[what]), **own}.items()]
    config["idx2name"] = [list(pair) for pair in config["idx2name"]]
    return config
