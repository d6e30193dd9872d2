"""Which cuts a synchronous job is asked to make, and when a checkpoint exists."""

from __future__ import annotations

from typing import Any

import pytest
from mxopt_server.checkpoints import Checkpoints

from mxopt.errors import KVStoreError
from mxopt.kvstore import wire


class Job:
    """Two workers that make `rate` rounds a second, two servers, and a scheduler that hears of all
    each second, at other moments of it; who is told of a cut has gone on for another second
    meanwhile."""

    def __init__(self, durability: str, rate: float, begins: int = 0, **notes: Any) -> None:
        self.notes, self.rate, self.now, self.round = notes, rate, 0.0, float(begins)
        self.kept = Checkpoints(durability, 10.0, 1.0, self.notes)
        self.named: list[tuple[int, bool]] = []
        self.made = self.heard = 0

    def pass_by(self, seconds: int, full: bool = False) -> None:
        """Time goes by; workers make the cuts that they hear of in time, servers write what they
        are asked to."""
        for _ in range(seconds):
            self.now += 1
            said = int(self.round)
            for rank in (0, 1):
                self.kept.worker(rank, said, self.now)
                written = self.made if self.kept.keeps else self.kept.exists
                self.kept.server(rank, self.made, written, full, 2)
            before = self.kept.cut
            assert self.kept.tick(2, self.now) == (self.kept.cut != before)
            self.round += self.rate
            if self.kept.cut != before:
                self.named.append((self.kept.cut, self.kept.keeps))
                self.heard = self.kept.cut if self.round <= self.kept.cut else 0
            if self.heard and self.round > self.heard:
                self.made = self.heard


@pytest.mark.parametrize("rate", [0.02, 0.5, 3.0, 1000.0])
@pytest.mark.parametrize("begins", [0, 5000])
def test_cuts_are_named_so_far_ahead_that_everybody_hears_of_them(
    rate: float, begins: int, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job("snapshot", rate, begins)
    job.pass_by(400)
    assert all(keeps for _, keeps in job.named)
    assert 2 <= len(job.named) <= 40
    assert job.notes["checkpoint"] == job.kept.exists >= job.named[0][0]
    assert "dropped" not in caplog.text


@pytest.mark.parametrize("rate", [1.0, 100.0, 1000.0])
def test_the_first_checkpoint_is_there_a_few_seconds_after_it_is_due(rate: float) -> None:
    job = Job("snapshot", rate)
    job.pass_by(10 + 9)
    assert job.kept.exists


def test_a_cut_that_a_job_has_become_too_fast_for_is_dropped_and_followed_at_once_by_one_further_ahead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = Job("snapshot", 1.0)
    while not job.named:
        job.pass_by(1)
    job.rate, job.heard = 100.0, 0
    job.pass_by(14)
    (first, _), (second, _) = job.named
    assert f"cut {first} is dropped: servers [0, 1] haven't heard of it" in caplog.text
    assert job.kept.exists == second


def test_cuts_are_near_again_when_what_made_them_come_too_late_is_over() -> None:
    job = Job("journal", 10.0)
    job.pass_by(20)
    usual = job.named[-1][0] - job.named[-2][0]
    for _ in range(4):  # nobody hears of what is named
        count = len(job.named)
        while len(job.named) == count:
            job.pass_by(1)
        job.heard = 0
    job.pass_by(120)
    assert job.named[-1][0] - job.named[-2][0] <= usual


def test_a_cut_that_a_job_has_become_too_slow_for_is_named_anew_and_nearer() -> None:
    job = Job("snapshot", 1000.0)
    while not job.named:
        job.pass_by(1)
    job.rate, job.round = 0.5, job.round - 900  # since it was named
    job.pass_by(25)
    assert max(job.round, job.kept.exists) < job.named[0][0]
    assert job.kept.exists > 0


def test_a_resumed_job_whose_first_push_takes_long_has_no_cut_before_it() -> None:
    job = Job("snapshot", 0.0)
    job.pass_by(60)
    assert not job.named
    job.round, job.rate = 5000.0, 1.0
    job.pass_by(20)
    assert 5000 < job.kept.exists < 5050


def test_a_cut_that_is_ahead_is_not_named_anew() -> None:
    job = Job("snapshot", 0.01, begins=1)  # a round takes longer than from one checkpoint to the next
    job.pass_by(90)
    assert len(job.named) == 1


def test_with_a_journal_there_is_a_cut_each_second_and_a_checkpoint_where_it_is_large() -> None:
    job = Job("journal", 10.0)
    job.pass_by(60)
    assert len(job.named) >= 18  # those who are told in this test have gone on for a second meanwhile
    assert not any(keeps for _, keeps in job.named)
    job.pass_by(20, full=True)
    assert job.named[-1][1]
    assert job.kept.exists > 0


def test_a_checkpoint_exists_when_all_servers_have_it_and_that_is_written_down_first() -> None:
    notes: dict[Any, Any] = {}
    kept = Checkpoints("snapshot", 10.0, 1.0, notes)
    kept.server(0, 7, 7, False, 2)
    assert kept.exists == 0
    kept.server(1, 7, 5, False, 2)
    assert kept.exists == 0
    kept.server(1, 7, 7, False, 2)
    assert kept.exists == notes["checkpoint"] == 7


class Full(dict[str, Any]):
    """Notes on a disk that is full for the first time."""

    full = True

    def __setitem__(self, name: str, value: object) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().__setitem__(name, value)


def test_a_checkpoint_that_cannot_be_written_down_does_not_exist_until_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = Checkpoints("snapshot", 10.0, 1.0, notes := Full())
    for _ in range(2):
        for rank in (0, 1):
            kept.server(rank, 7, 7, False, 2)
    assert kept.exists == 0
    assert "checkpoint 7 can't be written down: [Errno 28] No space left on device" in caplog.text
    notes.full = False
    kept.server(1, 7, 7, False, 2)
    assert kept.exists == notes["checkpoint"] == 7


def test_an_asynchronous_job_has_no_cuts() -> None:
    notes: dict[Any, Any] = {}
    kept = Checkpoints("snapshot", 10.0, 1.0, notes)
    for now in range(100):
        for rank in (0, 1):
            kept.worker(rank, -1, now)
        kept.tick(2, now)
    assert kept.cut == 0
    assert "sync" not in notes


def test_a_resumed_job_goes_on_from_the_newest_cut_that_all_servers_have() -> None:
    assert Checkpoints("journal", 1, 1, {}).goes_on([[1, 2], [1, 2]]) == -1
    assert Checkpoints("journal", 1, 1, {"sync": True}).goes_on([[1, 2, 3], [1, 2]]) == 2
    assert Checkpoints("journal", 1, 1, {"sync": True, "checkpoint": 4}).goes_on([[], [5]]) == 4
    assert Checkpoints("journal", 1, 1, {"sync": True}).goes_on([[1], [2]]) == 0
    assert Checkpoints("snapshot", 1, 1, {"sync": True, "checkpoint": 4}).goes_on([[], []]) == 4


def test_a_job_is_not_sent_back_to_where_it_could_not_begin() -> None:
    kept = Checkpoints("snapshot", 1, 1, {"sync": True, "checkpoint": 4})
    kept.worker(0, 0, 1.0)
    assert kept.advice == ""
    kept.worker(0, 5, 2.0)
    assert kept.advice == "; mxopt-launch --resume goes on from checkpoint 4"


def test_a_job_whose_servers_had_a_cut_in_common_never_begins_anew_without_a_word() -> None:
    kept = Checkpoints("journal", 1, 1, notes := {"sync": True})
    kept.server(0, 5, 0, False, 2)
    kept.server(1, 4, 0, False, 2)
    assert "cut" not in notes
    kept.server(1, 5, 0, False, 2)
    kept.server(0, 6, 0, False, 2)
    kept.server(1, 6, 0, False, 2)
    assert notes == {"sync": True, "cut": 5}
    with pytest.raises(
        KVStoreError, match=r"had cut 5 in common, and have none now \(server 0 has 2 cuts; server 1 has 0"
    ):
        Checkpoints("journal", 1, 1, notes).goes_on([[5, 6], []])


def test_a_cut_has_a_number_that_messages_can_name_whatever_a_worker_says() -> None:
    kept = Checkpoints("journal")
    for now in (0.0, 0.001, 2.0, 4.0):
        kept.worker(0, int(1 + 1000 * now), now)
        kept.worker(1, wire.LARGEST if now else 1, now)
        kept.tick(2, now)
    assert kept.cut == wire.LARGEST
