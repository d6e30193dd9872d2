"""A member's heart, by hand: when it takes the scheduler for dead."""

from __future__ import annotations

from mxopt.kvstore import messages as m
from mxopt.kvstore.heart import Heart

PULSE = m.encode(m.Pulse("running", "", [], []))


def failed_at(heart: Heart, start: int, end: int) -> int | None:
    """The first of these seconds at which the heart, turned every second, has failed."""
    for now in range(start, end):
        heart.turn(now)
        if heart.failure:
            return now
    return None


def test_a_scheduler_is_dead_after_its_limit_of_silence() -> None:
    heart = Heart(m.Beat("job", "worker", 0, "i"), 1, 10, "tcp://here", 0)
    heart.hear(PULSE, 5)
    assert failed_at(heart, 0, 60) == 16


def test_time_in_which_the_process_slept_is_nobodys_silence_and_counts_once() -> None:
    heart = Heart(m.Beat("job", "worker", 0, "i"), 1, 10, "tcp://here", 0)
    heart.turn(1)
    assert failed_at(heart, 41, 100) == 51  # heard of before it slept
    heart = Heart(m.Beat("job", "worker", 0, "i"), 1, 10, "tcp://here", 0)
    heart.turn(1)
    heart.hear(PULSE, 41)  # what had come meanwhile is read first
    assert failed_at(heart, 41, 100) == 52
