"""How workers end, and what the others hear about it. (Interpreters that were started: a forked one
might end otherwise.)"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from jobs import Job, result_of


def test_an_error_that_an_interactive_session_has_survived_does_not_fail_the_job() -> None:
    with Job(1, 1, fresh=True) as job:
        job.run("ends.after_an_error")
        assert job.ended() == [0, 0]


def test_survivors_say_why_the_job_failed_and_end_without_noise() -> None:
    with Job(2, 1, fresh=True) as job:
        workers = [job.start_worker(rank, "ends.one_raises") for rank in range(2)]
        codes = [worker.finish() for worker in workers]
        assert codes[0] == 1
        assert "CAUGHT" in workers[1].output
        assert "worker 0" in workers[1].output
        for worker in workers:
            assert "Exception ignored" not in worker.output


def test_a_worker_whose_last_pushes_are_not_taken_fails_and_says_why_in_one_line(tmp_path: Path) -> None:
    with Job(1, 1, fresh=True) as job:
        worker = job.start_worker(0, "ends.pushes_last", {"go": str(tmp_path / "go")})
        worker.wait_for("READY")
        job.servers[0].kill()
        job.servers[0].finish()
        (tmp_path / "go").touch()
        assert worker.finish() == 1
        assert "mxopt: JobFailedError: server 0" in worker.lines[-1]
        assert "Traceback" not in worker.output


def test_a_worker_whose_handshake_fails_ends(tmp_path: Path) -> None:
    foreign = tmp_path / "snapshot"
    foreign.write_bytes(b"hello" * 100)
    with Job(1, 1, ("--snapshot", str(foreign)), fresh=True) as job:
        worker = job.start_worker(0, "ends.after_an_error")
        assert worker.finish(20) != 0
        assert "JobFailedError: server 0" in worker.output


def test_a_forked_child_ends_normally_and_cannot_use_the_store() -> None:
    with Job(1, 1, fresh=True) as job:
        job.run("ends.forks")
        assert job.ended() == [0, 0]


def test_a_worker_that_ends_at_once_after_many_pushes_has_them_applied() -> None:
    with Job(2, 2, fresh=True) as job:
        job.run("ends.ends_at_once")
        assert job.ended() == [0, 0, 0]


@pytest.mark.parametrize("call", ["pull", "push", "pushpull"])
@pytest.mark.parametrize("seed", range(3))
def test_an_interrupt_within_a_call_leaves_all_of_it_or_none_or_a_closed_store_that_says_so(
    call: str, seed: int
) -> None:
    after = random.Random(seed).uniform(0.05, 0.4)
    with Job(1, 1) as job:
        worker = job.start_worker(0, "ends.interrupted", {"call": call, "after": after})
        worker.finish()
        if said := result_of(worker):
            assert said.startswith(f"this store was closed by KeyboardInterrupt within {call}"), after
            assert f"KeyboardInterrupt within {call}" in job.scheduler.wait_for("failed")
