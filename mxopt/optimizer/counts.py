"""Update counts: how often each parameter has been updated, on each device, and the largest of
all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mxopt.engine.uninterrupted import tell
from mxopt.errors import StatesError
from mxopt.lr_scheduler import LRScheduler
from mxopt.typing import Document, Plain

Index = int | str
Schedule: TypeAlias = LRScheduler | Callable[[int], float]
LISTS = (list, tuple)


class Counts:
    """The update counts of an optimizer. A schedule gives the rate of `num_update`."""

    begin_num_update: int
    num_update: int
    lr_scheduler: Any  # a Schedule or None
    _all_index_update_counts: dict[int, dict[Index, int]]
    _index_update_count: dict[Index, int]

    def _set_current_context(self, device_id: int) -> None:
        """From here on, counts the updates of another device's copies."""
        self._index_update_count = self._all_index_update_counts.setdefault(device_id, {})

    def _update_count(self, index: Index | Sequence[Index]) -> None:
        """Counts an update of one parameter, or of several."""
        counts, begin = self._index_update_count, int(self.begin_num_update)
        latest = self.num_update
        if isinstance(index, LISTS):
            for i in index:
                count = counts[i] = counts.get(i, begin) + 1
                if count > latest:
                    latest = count
        else:
            one: Any = index
            count = counts[one] = counts.get(one, begin) + 1
            if count > latest:
                latest = count
        self.num_update = latest

    def in_turn(self, update: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> None:
        """Calls `update` with the arguments of each call in turn, the first of which is an index or
        a list of them. If a signal handler raises, the exception says how many parameters have
        been updated."""
        at: int = 0
        before: int | None = None
        lists = [call[0] if isinstance(call[0], LISTS) else call[:1] for call in calls]
        try:
            for number, call in enumerate(calls):
                at, before = number, self.count(lists[number][0])
                update(*call)
        except BaseException as error:
            done = [*lists[:at], *([lists[at]] if self.count(lists[at][0]) != before else [])]
            tell(error, sum(map(len, done)), sum(map(len, lists)))
            raise

    def count(self, index: Index) -> int | None:
        """How often a parameter has been updated; None if it never was."""
        return self._index_update_count.get(index)

    def set_count(self, index: Index, count: int) -> None:
        """Sets the count of a parameter's updates; `num_update` stays."""
        self._index_update_count[index] = int(count)

    def has_updated(self, index: Index) -> bool:
        """Whether an update of this parameter has been counted."""
        return index in self._index_update_count

    def last_asked(self, num_update: int, counts: Sequence[int]) -> int:
        """The largest count that a schedule has been asked for, after so many updates of each
        parameter."""
        return num_update

    def get_counts(self) -> Plain:
        """A copy of the update counts, and of whatever else a subclass counts, as plain data."""
        devices = {device: dict(counts) for device, counts in self._all_index_update_counts.items()}
        return {"num_update": self.num_update, "devices": devices}

    def set_counts(self, counts: Document) -> None:
        """Sets the counts to what `get_counts` returned. Raises StatesError, and changes nothing,
        for anything else."""
        try:
            num_update = int(counts["num_update"])
            devices = {int(d): {i: int(n) for i, n in c.items()} for d, c in counts["devices"].items()}
            lowest = min([num_update, *(n for c in devices.values() for n in c.values())])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StatesError(f"these are no update counts: {error}") from error
        if lowest < 0:
            raise StatesError(f"these are no update counts: {lowest} updates")
        self.num_update = num_update
        self._all_index_update_counts = devices or {0: {}}
        self._index_update_count = self._all_index_update_counts.setdefault(0, {})
        if isinstance(self.lr_scheduler, LRScheduler):
            every = [n for c in devices.values() for n in c.values()]
            self.lr_scheduler.reach(self.last_asked(num_update, every))
