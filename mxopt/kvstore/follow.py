"""A worker's optimizer, followed: what of it has changed since the servers last heard, and how often it has updated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from mxopt.experimental.optim.keyed import KeyedOptimizer
from mxopt.kvstore.session import Channel
from mxopt.kvstore.values import Key
from mxopt.optimizer import LBSGD, Optimizer
from mxopt.optimizer.config import ATTRIBUTES, optimizer_config


class Followed:
    """`optimizer` as the servers behind `channels` have just been given it, by `config`."""

    def __init__(self, optimizer: Optimizer, config: dict[str, Any], channels: Sequence[Channel], version: int) -> None:
        self.optimizer, self.config, self.version = optimizer, config, version
        self.counts: dict[Key, int] = {}
        self.num_update = 0
        self._arguments = attrgetter(*(ATTRIBUTES.get(name, name) for name in config["arguments"]))
        self._seen = self._fingerprint()
        for channel in channels:
            channel.config_sent = version

    def look(self, keys: Iterable[Key]) -> None:
        """Notes whether hyper-parameters have changed. Called before every push of `keys`, so it must be quick.

        Raises ArgumentError where the optimizer has nothing to do with one of them, before anything is sent.
        """
        if isinstance(self.optimizer, KeyedOptimizer):
            for key in keys:
                self.optimizer.check_index(key)
        now = self._fingerprint()
        if now != self._seen:
            self.config = sendable(self.optimizer)
            self.version += 1
            self._seen = now

    def config_for(self, channel: Channel) -> dict[str, Any] | None:
        """The optimizer's config, if the server doesn't know it yet; from now on it does."""
        if channel.config_sent == self.version:
            return None
        channel.config_sent = self.version
        return self.config

    def restore(self, counts: dict[Key, int]) -> None:
        """Counts on from the saved numbers of updates, and takes the optimizer as it is now for known."""
        begin = self.optimizer.begin_num_update
        self.counts = {key: int(n) - begin for key, n in counts.items()}
        self.num_update = max(self.counts.values(), default=0)
        self._advance_schedule()

    def count(self, keys: Iterable[Key]) -> int:
        """The number of updates after a push of `keys`, as `Optimizer.num_update` has it."""
        counts = self.counts
        for key in keys:
            n = counts[key] = counts.get(key, 0) + 1
            if n > self.num_update:
                self.num_update = n
        self._advance_schedule()
        return self.num_update

    def _advance_schedule(self) -> None:
        """Lets the schedule know where the servers stand, so that a rate assigned to it counts from there."""
        optimizer = self.optimizer
        if optimizer.lr_scheduler is not None:
            behind = isinstance(optimizer, LBSGD)  # which asks for the rate before it counts
            optimizer.lr_scheduler.reach(optimizer.begin_num_update + self.num_update - behind)

    def _fingerprint(self) -> Any:
        optimizer = self.optimizer
        scheduler = optimizer.lr_scheduler
        return (
            self._arguments(optimizer), dict(optimizer.lr_mult), dict(optimizer.wd_mult), len(optimizer.idx2name),
            [(i, p.lr_mult, p.wd_mult) for i, p in optimizer.param_dict.items()],
            None if scheduler is None else scheduler.assigned,
        )  # fmt: skip


def sendable(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer as plain data, with the multipliers of its `param_dict`, which stays here.

    Raises StatesError where it is not registered, or keeps an argument that is no plain data.
    """
    config = optimizer_config(optimizer)
    for what in ("lr_mult", "wd_mult"):
        own = {index: float(getattr(param, what)) for index, param in optimizer.param_dict.items()}
        config[what] = [list(pair) for pair in {**dict(config[what]), **own}.items()]
    config["idx2name"] = [list(pair) for pair in config["idx2name"]]
    return config
