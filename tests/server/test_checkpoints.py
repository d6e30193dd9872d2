"""Which cuts a synchronous job is asked to make, and when a checkpoint exists."""

from __future__ import annotations

from typing import Any

from mxopt_server.checkpoints import Checkpoints


class Job:
    """Two workers at so many rounds a second, two servers, and a scheduler that hears of all each second."""

    def __init__(self, durability: str, rate: float, **notes: Any) -> None:
        self.notes, self.rate, self.now = notes, rate, 0.0
        self.kept = Checkpoints(durability, 10.0, 1.0, self.notes)
        self.named: list[tuple[int, bool]] = []

    def pass_by(self, seconds: int, full: bool = False) -> None:
        """Time goes by; servers write what they are asked to."""
        for _ in range(seconds):
            self.now += 1
            rounds = int(self.now * self.rate)
            for rank in (0, 1):
                self.kept.worker(rank, rounds, self.now)
                written = self.kept.cut if self.kept.keeps and rounds > self.kept.cut else self.kept.exists
                self.kept.server(rank, written, full, 2)
            before = self.kept.cut
            self.kept.tick(2, self.now)
            if self.kept.cut != before:
                assert self.kept.cut > rounds  # nobody is there yet
                self.named.append((self.kept.cut, self.kept.keeps))


def test_cuts_are_named_so_far_ahead_that_everybody_hears_of_them():
    for rate in (0.01, 0.5, 3.0, 1000.0):
        job = Job("snapshot", rate)
        job.pass_by(300)
        assert job.named
        for number, keeps in job.named:
            assert keeps
            assert number >= rate * 2
        assert len(job.named) <= 30
        assert job.kept.exists or rate < 0.1
        assert job.notes["checkpoint"] == job.kept.exists if rate > 0.1 else True


def test_a_cut_that_is_ahead_is_not_named_anew():
    job = Job("snapshot", 0.01)  # a round takes longer than from one checkpoint to the next
    job.pass_by(90)
    assert len(job.named) == 1


def test_with_a_journal_there_is_a_cut_each_second_and_a_checkpoint_where_it_is_large():
    job = Job("journal", 10.0)
    job.pass_by(60)
    assert len(job.named) >= 10
    assert not any(keeps for _, keeps in job.named)
    job.pass_by(20, full=True)
    assert job.named[-1][1]
    assert job.kept.exists > 0


def test_a_checkpoint_exists_when_all_servers_have_it_and_that_is_written_down_first():
    kept = Checkpoints("snapshot", 10.0, 1.0, notes := {})
    kept.server(0, 7, False, 2)
    assert kept.exists == 0
    kept.server(1, 5, False, 2)
    assert kept.exists == 0
    kept.server(1, 7, False, 2)
    assert kept.exists == notes["checkpoint"] == 7


def test_an_asynchronous_job_has_no_cuts():
    kept = Checkpoints("snapshot", 10.0, 1.0, notes := {})
    for now in range(100):
        for rank in (0, 1):
            kept.worker(rank, -1, now)
        kept.tick(2, now)
    assert kept.cut == 0
    assert "sync" not in notes


def test_a_resumed_job_goes_on_from_the_newest_cut_that_all_servers_have():
    assert Checkpoints("journal", 1, 1, {}).goes_on([[1, 2], [1, 2]]) == -1
    assert Checkpoints("journal", 1, 1, {"sync": True}).goes_on([[1, 2, 3], [1, 2]]) == 2
    assert Checkpoints("journal", 1, 1, {"sync": True, "checkpoint": 4}).goes_on([[], [5]]) == 4
    assert Checkpoints("journal", 1, 1, {"sync": True}).goes_on([[1], [2]]) == 0
    assert Checkpoints("snapshot", 1, 1, {"sync": True, "checkpoint": 4}).goes_on([[], []]) == 4
