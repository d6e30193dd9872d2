"""What a server holds: entries (its part of each key's value), cut into parts (the pieces that
travel)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mxopt.errors import KVStoreError, NotInitializedError, ProtocolError, counted
from mxopt.kvstore import wire
from mxopt.kvstore.placement import step_of
from mxopt.kvstore.wire import Key
from mxopt.typing import Array
from mxopt_server.contributions import ALL, Contribution
from mxopt_server.groups import Group, GroupKey, cut
from mxopt_server.members import Members


class PartIndex:
    """The optimizer's index of one of several parts of a key."""

    __slots__ = ("key", "piece")

    def __init__(self, key: Key, piece: int) -> None:
        self.key, self.piece = key, piece

    def __repr__(self) -> str:
        return f"{self.key!r}, piece {self.piece}"


class Part:
    """A piece of an entry: the unit of rounds and of updates. `weight` is a view of the entry's,
    `frame` its bytes."""

    __slots__ = ("entry", "frame", "group", "index", "piece", "shape", "size", "start", "stop", "weight")

    def __init__(self, entry: Entry, piece: int) -> None:
        self.entry, self.piece = entry, piece
        self.start, self.stop = piece * entry.step, min(entry.units, (piece + 1) * entry.step)
        self.weight = entry.weight if entry.pieces == 1 else entry.weight[self.start : self.stop]
        self.frame = b"" if entry.by_rows else wire.bytes_of(self.weight)
        self.shape, self.size = self.weight.shape, math.prod(self.weight.shape)
        self.index: Any = entry.key if entry.pieces == 1 else PartIndex(entry.key, piece)
        self.group: Group | None = None


class Entry:
    """This server's part of a key's value. Its parts are made as their first values come, one after
    the other.

    Parameters
    ----------
    key : int or str
    dtype : str
    shape : (units, elements of a unit...)
    whole : the shape of the whole array
    first : where the part begins in the whole array, in units
    """

    by_rows = False  # whether it is row-sparse
    weight: Array

    def __init__(self, key: Key, dtype: str, shape: Sequence[int], whole: Sequence[int], first: int) -> None:
        self.key, self.dtype, self.shape, self.whole, self.first = key, dtype, tuple(shape), tuple(whole), first
        self.real = wire.DTYPES[dtype]
        self.units, self.step = shape[0], step_of(math.prod(shape[1:]) * self.real.itemsize)
        self.pieces = max(1, -(-self.units // self.step))
        self.is_all = math.prod(shape) == math.prod(whole)  # of the array
        self.parts: list[Part] = []
        self.sums: dict[int, np.ndarray] = {}  # for rules that need all pieces, those so far: by worker, or of ALL
        self.arrived: dict[int, int] = {}  # how many pieces each of them has

    @property
    def complete(self) -> bool:
        """Whether all of the first value has come."""
        return len(self.parts) == self.pieces

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return int(self.weight.nbytes) if self.parts else 0

    def size_of(self, piece: int) -> int:
        """The elements of a piece."""
        return (min(self.units, (piece + 1) * self.step) - piece * self.step) * math.prod(self.shape[1:])

    def add(self, value: np.ndarray) -> None:
        """Takes the first value of the next part, flat."""
        if not self.parts:
            self._allocate()
        part = Part(self, len(self.parts))
        part.weight[...] = value.reshape(part.shape)
        self.parts.append(part)

    def restore(self, weight: np.ndarray, have: int) -> None:
        """Takes saved values, of the first `have` parts."""
        self._allocate()
        self.weight[...] = weight
        self.parts = [Part(self, piece) for piece in range(have)]

    def _allocate(self) -> None:
        """Makes the array; what of it hasn't come takes no memory."""
        # All of it in one piece: the optimizer sees it as the worker does.
        self.weight = np.zeros(self.whole if self.is_all and self.pieces == 1 else self.shape, self.real)

    def holds_back(self, rank: int) -> bool:
        """Whether a worker's pushes wait for other pieces."""
        return ALL in self.sums or rank in self.sums

    def rows(self) -> np.ndarray:
        """The weight as (units, elements of a unit)."""
        rows: np.ndarray = self.weight.reshape(self.units, -1) if self.units else self.weight.reshape(0, 1)
        return rows


class Values:
    """All entries of a server, and their groups."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.entries: dict[Key, Entry] = {}
        self.groups: dict[GroupKey, Group] = {}

    def entry(self, key: Key) -> Entry:
        """The entry of a key whose first value is complete."""
        found = self.entries.get(key)
        if found is None or len(found.parts) < found.pieces:
            raise NotInitializedError(f"key {key!r} has not been initialised on this server")
        return found

    def parts(self, keys: Sequence[Key], piece: int) -> list[Part]:
        """The parts a message speaks of: piece `piece` of a single key, or several keys of one
        piece each."""
        known = self.groups.get(tuple(keys) if len(keys) > 1 else ((keys[0], piece),))
        if known is not None and not known.entry.by_rows:
            return known.parts
        for key in keys:
            if key in self.entries and self.entries[key].by_rows:
                raise KVStoreError(f"key {key!r} is stored by rows, which are pushed and pulled by their numbers")
        if len(keys) == 1:
            entry = self.entry(keys[0])
            if piece >= entry.pieces:
                raise KVStoreError(
                    f"key {keys[0]!r} has {counted(entry.pieces, 'piece')} here, there is no piece {piece}"
                )
            return [entry.parts[piece]]
        found = [self.entry(key) for key in keys]
        for entry in found:
            if entry.pieces > 1:
                raise KVStoreError(f"key {entry.key!r} has {counted(entry.pieces, 'piece')}, which travel one by one")
        if len({entry.weight.dtype for entry in found}) > 1:
            raise ProtocolError("a message with keys of different dtypes")
        return [entry.parts[0] for entry in found]

    def parts_of(self, keys: GroupKey) -> list[Part]:
        """The parts of the group that these keys name."""
        if keys[0] is None:
            return self.entry(keys[1]).parts
        if isinstance(keys[0], tuple):
            entry = self.entry(keys[0][0])
            return entry.parts if entry.by_rows else self.parts([keys[0][0]], keys[0][1])
        return self.parts(keys, 0)

    def group(self, keys: GroupKey, parts: Sequence[Part]) -> Group | None:
        """The group of exactly these parts; None where something is pending in other groups of
        them."""
        found = self.groups.get(keys)
        if found is not None:
            return found
        if len({id(part) for part in parts}) < len(parts):
            raise KVStoreError("a message with the same key twice")
        for other in {id(p.group): p.group for p in parts if p.group is not None}.values():
            if len(other.parts) > 1:
                del self.groups[other.keys]
                self.groups.update({single.keys: single for single in other.singles()})
        for part in parts:
            if part.group is None:
                single = ((part.entry.key, part.piece),)
                self.groups[single] = Group([part], single, self.members.kind(self.members))
        if len(parts) == 1:
            return self.groups[keys]
        groups = [part.group for part in parts if part.group is not None]
        if any(g.pending or not g.rounds.alike(groups[0].rounds) for g in groups):
            return None
        for group in groups:
            del self.groups[group.keys]
        made = self.groups[keys] = Group(parts, keys, groups[0].rounds)
        return made

    def shares(
        self, keys: GroupKey, parts: Sequence[Part], contribution: Contribution
    ) -> list[tuple[Group, Contribution]]:
        """The groups that a contribution is for, each with its share of it: one as a whole, or one
        for each part."""
        group = self.group(keys, parts)
        if group is not None:
            return [(group, contribution)]
        start, found = 0, []
        for k, part in enumerate(parts):
            assert part.group is not None
            found.append((part.group, cut(contribution, slice(start, start + part.size), part, k == 0)))
            start += part.size
        return found

    def present(self, key: Key, rank: int) -> int:
        """The round of a key from which a worker's pushes count on: where the job is taken up again
        the last that all parts have, so that it is made whole; else the last that one has."""
        rounds = [p.group.rounds.last(rank) if p.group is not None else 0 for p in self.entry(key).parts]
        return min(rounds) if self.members.begins(rank) else max(rounds)
