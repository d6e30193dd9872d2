"""How workers end, and what of it the others hear."""

from __future__ import annotations

from jobs import Job


def test_an_error_that_an_interactive_session_has_survived_does_not_fail_the_job():
    with Job(1, 1) as job:
        assert job.run("ends.after_an_error") == [[-2.0] * 4]
        assert job.ended() == [0, 0]


def test_survivors_say_why_the_job_failed_and_end_without_noise():
    with Job(2, 1) as job:
        workers = [job.start_worker(rank, "ends.one_raises") for rank in range(2)]
        assert [worker.finish() for worker in workers] == [1, 1]
        assert "CAUGHT worker 0" in workers[1].output
        assert "RuntimeError: this worker raises" in workers[1].output
        assert "mxopt: JobFailedError: worker 0" in workers[1].output
        for worker in workers:
            assert "Exception ignored" not in worker.output


def test_a_worker_whose_handshake_fails_ends(tmp_path):
    foreign = tmp_path / "snapshot"
    foreign.write_bytes(b"hello" * 100)
    with Job(1, 1, ("--snapshot", str(foreign))) as job:
        worker = job.start_worker(0, "ends.after_an_error")
        assert worker.finish(20) != 0
        assert "JobFailedError: server 0" in worker.output
