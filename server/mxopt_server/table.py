"""The values of a server and the optimizer that updates them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mxopt.errors import KVStoreError, MXOptError, NotInitializedError
from mxopt.kvstore.placement import needs_whole
from mxopt.kvstore.wire import Key
from mxopt.optimizer import DCASGD, Optimizer, Updater
from mxopt.optimizer.config import ATTRIBUTES, make_optimizer
from mxopt.sparse import RowSparse
from mxopt_server.entries import Entry, Part, cut, total
from mxopt_server.rounds import Contribution, Group, Request

log = logging.getLogger("mxopt.server")


class Table:
    """All entries, their groups, and the updater.

    Parameters
    ----------
    workers : how many take part in a round
    mode : sync, async or ssp
    staleness : of ssp, how many pushes a worker may be ahead of the slowest
    """

    def __init__(self, workers: int, mode: str = "sync", staleness: int = 0) -> None:
        self.workers, self.mode, self.staleness = workers, mode, staleness
        self.ended: set[int] = set()
        self.entries: dict[Key, Entry] = {}
        self.groups: dict[tuple[Any, ...], Group] = {}
        self.updater: Updater | None = None
        self.config: dict[str, Any] | None = None
        self.whole = False  # the optimizer needs all pieces of an array at once
        self.event = 0  # calls of set_optimizer so far
        self.refused: MXOptError | None = None  # why the last of them was
        self.loads: dict[Key, int] = {}  # calls of load_optimizer_states so far
        self.updates = 0
        self._previous: dict[tuple[Any, int], Any] = {}  # DCASGD in async mode: (index, worker) -> previous weight

    # Finding.

    def entry(self, key: Key) -> Entry:
        """The entry of a key whose first value is complete."""
        found = self.entries.get(key)
        if found is None or found.missing:
            raise NotInitializedError(f"key {key!r} has not been initialised on this server")
        return found

    def parts(self, keys: Sequence[Key], piece: int) -> list[Part]:
        """The parts a message speaks of: piece `piece` of a single key, or several keys of one piece each."""
        if len(keys) > 1 and (known := self.groups.get(tuple(keys))) is not None:
            return known.parts
        if len(keys) == 1:
            entry = self.entry(keys[0])
            if piece >= entry.pieces:
                raise KVStoreError(f"key {keys[0]!r} has {entry.pieces} pieces here, there is no piece {piece}")
            return [entry.parts[piece]]
        found = []
        entries = self.entries
        for key in keys:
            entry = entries.get(key)  # type: ignore[assignment]
            if entry is None or entry.missing:
                raise NotInitializedError(f"key {key!r} has not been initialised on this server")
            if entry.pieces > 1:
                raise KVStoreError(f"key {key!r} has {entry.pieces} pieces, which travel one by one")
            found.append(entry.parts[0])
        return found

    def group(self, keys: tuple[Any, ...], parts: Sequence[Part]) -> Group | None:
        """The group of exactly these parts; None where something is pending in other groups of them."""
        found = self.groups.get(keys)
        if found is not None:
            return found
        if len({id(part) for part in parts}) < len(parts):
            raise KVStoreError("a message with the same key twice")
        for other in {id(p.group): p.group for p in parts if p.group is not None}.values():
            self._dissolve(other)
        for part in parts:
            if part.group is None:
                single = ((part.entry.key, part.piece),)
                self.groups[single] = Group(self, [part], single)
        if len(parts) == 1:
            return self.groups[keys]
        if any(p.group.pending for p in parts) or len({tuple(p.group.counts) for p in parts}) > 1:
            return None
        counts = parts[0].group.counts
        for part in parts:
            del self.groups[part.group.keys]
        made = self.groups[keys] = Group(self, parts, keys)
        made.counts = list(counts)
        return made

    def _dissolve(self, group: Group) -> None:
        if len(group.parts) == 1:
            return
        del self.groups[group.keys]
        for single in group.dissolve():
            self.groups[single.keys] = single

    def push(self, keys: tuple[Any, ...], parts: Sequence[Part], contribution: Contribution) -> None:
        """Takes a contribution to `parts` as a whole, or part by part."""
        group = self.group(keys, parts)
        if contribution.request is not None:
            contribution.request.missing = 1 if group is not None else len(parts)
        if group is not None:
            group.push(contribution)
            return
        start = 0
        for k, part in enumerate(parts):
            part.group.push(contribution.cut(start, start + part.size, part, k == 0))
            start += part.size

    def depth(self, parts: Sequence[Part], rank: int) -> int:
        """How many rounds ahead a worker is."""
        group = parts[0].group
        return len(group.queues[rank]) if group is not None else 0

    def wait(self, request: Request, parts: Sequence[Part]) -> None:
        """Answers `request` when its worker may see the values of `parts`."""
        groups = {id(p.group): p.group for p in parts if p.group is not None}
        unsettled = [g for g in groups.values() if not g.settled(request.rank)]
        request.missing = len(unsettled) or 1
        for group in unsettled:
            group.waiting.append(request)
        if not unsettled:
            request.met()

    # Updating.

    def apply(self, group: Group, contributions: Sequence[Contribution], rank: int) -> bool:
        """Updates a group's parts by the sum of the contributions. False where more pieces are needed first."""
        parts = group.parts
        for contribution in contributions:
            if contribution.config is not None:
                self.reconfigure(contribution.config)
        value = total([c.value for c in contributions], parts)
        if self.updater is None:
            self._replace(group, value)
            return True
        optimizer, update = self.updater.optimizer, contributions[0].update
        if not update or optimizer.own_num_update:
            return self._apply(group, value, contributions, rank)
        latest = optimizer.num_update
        optimizer.num_update = optimizer.begin_num_update + update  # of this push, which may have overtaken others
        done = self._apply(group, value, contributions, rank)
        optimizer.num_update = max(latest, optimizer.num_update)
        return done

    def _apply(self, group: Group, value: Any, contributions: Sequence[Contribution], rank: int) -> bool:
        parts = group.parts
        self.updates += 1
        entry = parts[0].entry
        if isinstance(value, RowSparse) or (len(parts) > 1 and entry.pieces > 1):
            self._update_entry(entry, value, rank)
        elif len(parts) > 1:
            self.update(group.indices, group.split(value), group.weights, rank)
        elif entry.pieces > 1 and self.whole:
            return self._assemble(parts[0], value, contributions, rank)
        else:
            self._update_part(parts[0], value, rank)
        return True

    def update(self, indices: list[Any], grads: list[Any], weights: list[Any], rank: int) -> None:
        """Calls the updater; in async mode DCASGD sees the weight of the worker's own last update."""
        assert self.updater is not None
        if self.mode == "sync" or not isinstance(self.updater.optimizer, DCASGD) or self.workers == 1:
            if len(indices) == 1:
                self.updater(indices[0], grads[0], weights[0])
            else:
                self.updater(indices, grads, weights)
            return
        for index, grad, weight in zip(indices, grads, weights, strict=True):
            if index not in self.updater.states:
                self.updater.states[index] = self.updater.optimizer.create_state_multi_precision(index, weight)
            state = self.updater.states[index]
            if (index, rank) not in self._previous:  # the first update of it: everybody knows the same weight
                for worker in range(self.workers):
                    self._previous[index, worker] = _copy_previous(self.updater.optimizer, state, weight)
            mine = self._previous[index, rank]
            self.updater.states[index] = _with_previous(self.updater.optimizer, state, mine, weight)
            self.updater.states_synced[index] = True
            self.updater(index, grad, weight)

    def _update_part(self, part: Part, value: np.ndarray, rank: int) -> None:
        assert self.updater is not None
        if part.entry.pieces > 1 and part.index not in self.updater.states:
            self._cut_states(part.entry)
        self.update([part.index], [value.reshape(part.shape)], [part.weight], rank)

    def _update_entry(self, entry: Entry, value: Any, rank: int) -> None:
        """One update of all parts of an entry together, counted once for each."""
        assert self.updater is not None
        if entry.pieces > 1 and entry.parts[0].index not in self.updater.states and not self.whole:
            self._cut_states(entry)
        if isinstance(value, RowSparse):
            value = RowSparse(
                value.data.reshape(len(value.indices), *entry.weight.shape[1:]), value.indices, entry.weight.shape
            )
        else:
            value = value.reshape(entry.weight.shape)
        counts = self.updater.optimizer._index_update_count
        if entry.pieces > 1 and not self.whole and entry.parts[0].index in counts:
            counts[entry.key] = counts[entry.parts[0].index]
        weight = entry.weight
        if self.whole and entry.pieces > 1:
            weight = weight.reshape(entry.whole)
            if not isinstance(value, RowSparse):
                value = value.reshape(entry.whole)
        self.update([entry.key], [value], [weight], rank)
        if entry.pieces > 1 and not self.whole:
            for part in entry.parts:
                counts[part.index] = counts[entry.key]

    def _assemble(self, part: Part, value: np.ndarray, contributions: Sequence[Contribution], rank: int) -> bool:
        """Keeps a piece's sum until all are there, then updates the whole."""
        entry = part.entry
        gradient = entry.gradients.get(rank)
        if gradient is None:
            gradient = entry.gradients[rank] = np.empty(entry.weight.shape, value.dtype)
        gradient[part.start : part.stop] = value.reshape(part.shape)
        entry.arrived[rank] = entry.arrived.get(rank, 0) + 1
        entry.assembling += [c.request for c in contributions if c.request is not None] or [None]
        if entry.arrived[rank] < entry.pieces:
            return False
        entry.arrived[rank] = 0
        self._update_entry(entry, gradient, rank)
        del entry.gradients[rank]
        if not any(entry.arrived.values()):
            waiting, entry.assembling = entry.assembling, []
            for request in waiting:
                if request is not None:
                    request.met()
            for each in entry.parts:
                each.group.settle()
        return False

    def _replace(self, group: Group, value: Any) -> None:
        """Without an optimizer the sum becomes the value."""
        if self.mode != "sync":
            raise KVStoreError("dist_async needs an optimizer: call set_optimizer before the first push")
        self.updates += 1
        if isinstance(value, RowSparse):
            entry = group.parts[0].entry
            entry.weight[...] = value.todense().reshape(entry.weight.shape)
            return
        for weight, part in zip(group.weights, group.split(value), strict=True):
            weight[...] = part

    def _cut_states(self, entry: Entry) -> None:
        """Makes an entry's state, and gives each part its piece of it."""
        assert self.updater is not None
        updater = self.updater
        if entry.key not in updater.states:
            updater.states[entry.key] = updater.optimizer.create_state_multi_precision(entry.key, entry.weight)
            updater.states_synced[entry.key] = True
        counts = updater.optimizer._index_update_count
        for part in entry.parts:
            updater.states[part.index] = cut(updater.states[entry.key], part.start, part.stop, entry.units)
            updater.states_synced[part.index] = True
            if entry.key in counts:
                counts[part.index] = counts[entry.key]
        self._name_parts(updater.optimizer, entry)

    def _name_parts(self, optimizer: Optimizer, entry: Entry) -> None:
        """Lets a key's name and multipliers hold for its parts too."""
        if entry.pieces == 1:
            return
        tables: tuple[dict[Any, Any], ...] = (optimizer.idx2name, optimizer.lr_mult, optimizer.wd_mult)
        for values in tables:
            if entry.key in values:
                values.update(dict.fromkeys((part.index for part in entry.parts), values[entry.key]))

    # The optimizer.

    def set_optimizer(self, event: int, config: Mapping[str, Any] | None) -> None:
        """Installs an optimizer with no states, unless a worker's call of this number did so already."""
        if event == self.event and self.refused is not None:
            raise self.refused
        if event <= self.event:
            return
        if event > self.event + 1:
            raise KVStoreError(
                f"this is the workers' set_optimizer number {event}, and number {self.event} is the last that this"
                " server knows of"
            )
        self.event, self.refused = event, None
        try:
            optimizer = self._made(config)
        except MXOptError as error:
            self.refused = error  # to the other workers' calls of this number too
            raise
        self.whole, self._previous = needs_whole(optimizer), {}
        self.updater = None if optimizer is None else Updater(optimizer)
        self.config = None if config is None else dict(config)
        log.info("optimizer: %r", optimizer)

    def _made(self, config: Mapping[str, Any] | None) -> Optimizer | None:
        """The optimizer of a config. Raises where it can't update what is here."""
        optimizer = None if config is None else make_optimizer(config)
        for entry in self.entries.values() if needs_whole(optimizer) else ():
            if entry.weight.size < np.prod(entry.whole, dtype=object):
                raise KVStoreError(
                    f"{optimizer!r} needs whole arrays, but key {entry.key!r} is striped over the"
                    " servers: call set_optimizer before init"
                )
        return optimizer

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Takes over changed hyper-parameters; states and counts stay."""
        if config == self.config or self.updater is None:
            return
        made = make_optimizer(config)
        kept = self.updater.optimizer
        if type(made) is not type(kept) or needs_whole(made) != self.whole:
            raise KVStoreError(f"a {type(kept).__name__} can't become {made!r} between pushes: call set_optimizer")
        for name in config["arguments"]:
            attribute = ATTRIBUTES.get(name, name)
            setattr(kept, attribute, getattr(made, attribute))
        kept.lr_scheduler, kept.idx2name = made.lr_scheduler, made.idx2name
        kept.lr_mult, kept.wd_mult = made.lr_mult, made.wd_mult
        for entry in self.entries.values():
            self._name_parts(kept, entry)
        self.config = dict(config)

    def count(self, entry: Entry) -> int | None:
        """How often an entry has been updated."""
        if self.updater is None:
            return None
        counts = self.updater.optimizer._index_update_count
        found = counts.get(entry.parts[0].index, counts.get(entry.key))
        return found

    def state(self, entry: Entry) -> Any:
        """An entry's optimizer state: None where there is none yet."""
        return None if self.updater is None else self.updater.states.get(entry.key)

    def set_state(self, entry: Entry, state: Any, count: int | None) -> None:
        """Takes over a saved state and update count."""
        if self.updater is None:
            raise KVStoreError("there is no optimizer to load states for: call set_optimizer first")
        updater, optimizer = self.updater, self.updater.optimizer
        updater.states.pop(entry.key, None)
        for index in (entry.key, *(p.index for p in entry.parts)):
            updater.states.pop(index, None)
            updater.states_synced.pop(index, None)
            for worker in range(self.workers):
                self._previous.pop((index, worker), None)
            if count is not None:
                optimizer._index_update_count[index] = count
        if state is not ABSENT:
            updater.states[entry.key] = state
            if entry.pieces > 1 and not self.whole:
                self._cut_states(entry)
        optimizer.num_update = max([optimizer.begin_num_update, *optimizer._index_update_count.values()])


ABSENT = object()


def _copy_previous(optimizer: Optimizer, state: Any, weight: np.ndarray) -> np.ndarray:
    inner = optimizer.split(state)[0] if optimizer.uses_master(weight) else state
    return np.array(inner[1])


def _with_previous(optimizer: Optimizer, state: Any, previous: np.ndarray, weight: np.ndarray) -> Any:
    if optimizer.uses_master(weight):
        inner, master = optimizer.split(state)
        return optimizer.join((inner[0], previous), master)
    return (state[0], previous)
