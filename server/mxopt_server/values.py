"""All that a server holds: entries by key, and the groups in which their parts are pushed."""

from __future__ import annotations

from collections.abc import Sequence

from mxopt.errors import KVStoreError, NotInitializedError, ProtocolError, counted
from mxopt.kvstore.wire import Key
from mxopt_server.contributions import Contribution
from mxopt_server.entries import Entry, Group, GroupKey, Part, cut
from mxopt_server.members import Members
from mxopt_server.rounds import MODES


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
        """The group of exactly these parts; None if something is pending in other groups of
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
                rounds = MODES[self.members.mode](self.members, part.entry.round)
                self.groups[single] = Group([part], single, rounds)
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
        entry = self.entry(key)
        rounds = [p.group.rounds.last(rank) if p.group is not None else entry.round for p in entry.parts]
        return min(rounds) if self.members.begins(rank) else max(rounds)
