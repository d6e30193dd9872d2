"""When workers that wait for each other count as a circle."""

from __future__ import annotations

from mxopt_server.standstill import Standstill


def said(*times: tuple[float, int, object, list[int]]) -> list[str]:
    """What a Standstill answers to (time, worker, its call, whom it waits for)."""
    found = Standstill()
    reasons = [{other: f"hasn't pushed key {other}" for other in others} for *_, others in times]
    return [found.waits(rank, call, why, time) for (time, rank, call, _), why in zip(times, reasons, strict=True)]


def test_a_circle_is_certain_when_all_have_learned_twice_more_that_they_wait() -> None:
    *before, last = said((0, 0, 1, [1]), (1, 1, 7, [0]), (3, 0, 1, [1]), (4, 1, 7, [0]), (6, 0, 1, [1]), (7, 1, 7, [0]))
    assert before == [""] * 5
    assert last == ("worker 0 waits, as worker 1 hasn't pushed key 1; worker 1 waits, as worker 0 hasn't pushed key 0")


def test_who_begins_another_call_has_gone_on() -> None:
    assert not any(said(*((t, t % 2, (t // 2 if t % 2 else 0), [1 - t % 2]) for t in range(40))))


def test_who_waits_for_a_worker_that_does_not_wait_is_in_no_circle() -> None:
    assert not any(said(*((t, t % 2, 1, [2]) for t in range(40))))


def test_a_worker_that_was_heard_of_long_ago_is_in_no_circle() -> None:
    assert not any(said((0, 1, 1, [0]), *((t, 0, 1, [1]) for t in range(9, 40, 3))))
