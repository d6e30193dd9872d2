"""Nadam's product of its schedule, however many updates and in whatever order."""

from __future__ import annotations

import mxopt


def test_nadam_with_parameters_at_different_updates_gives_each_what_it_gets_alone() -> None:
    """Each goes on from its own product of the schedule, which isn't made anew at each step."""
    asked: list[int] = []

    class Nadam(mxopt.optimizer.Nadam):
        def _momentum(self, t: int) -> float:
            asked.append(t)
            return super()._momentum(t)

    def steps(updates: list[int]) -> list[tuple[float, ...]]:
        optimizer = Nadam(schedule_decay=0.2)
        return [optimizer.scalars(0, 0.1, t) for t in updates]

    mixed = [t for k in range(1, 60) for t in (60 + k, k, k, 60 + k)]
    alone = dict(enumerate(steps(list(range(1, 120))), 1))
    asked.clear()
    assert steps(mixed) == [alone[t] for t in mixed]
    assert len(asked) < 4 * len(mixed)


def test_nadam_goes_on_at_once_after_any_number_of_updates() -> None:
    assert mxopt.create("nadam").scalars(0, 0.1, 10**12)[0] == 0.1
