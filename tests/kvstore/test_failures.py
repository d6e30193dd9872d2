"""One process that is killed, raises or ends early: a clear error in every other process, in
time."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from jobs import SERVE, Job, Process, environment

LIMIT_S = 15


def others_fail(job: Job, gone: object, text: str) -> None:
    """All processes but `gone` end with an error within the limit, and the workers' errors say
    `text`."""
    start = time.monotonic()
    for process in job.processes:
        if process is gone:
            continue
        assert process.finish(LIMIT_S) != 0, process.output
        if process in job.workers:
            assert "Error" in process.output, process.output
            assert text in process.output, process.output
    assert time.monotonic() - start < LIMIT_S


def running(job: Job, **arguments: object) -> None:
    for rank in range(int(job.env["DMLC_NUM_WORKER"])):
        job.start_worker(rank, "forever", {"mode": "dist_sync", **arguments})
    for worker in job.workers:
        worker.wait_for("RUNNING")


def test_a_killed_worker_fails_the_job() -> None:
    with Job(2, 1) as job:
        running(job)
        job.workers[1].kill()
        others_fail(job, job.workers[1], "worker 1")


@pytest.mark.parametrize("mode", ["dist_async", "dist_ssp"])
def test_a_killed_worker_is_replaced_where_the_others_go_on_without_it(mode: str) -> None:
    with Job(2, 1) as job:
        running(job, mode=mode)
        job.workers[1].kill()
        job.workers[1].finish()
        again = job.start_worker(1, "forever", {"mode": mode})
        again.wait_for("RUNNING")  # once the place is free
        assert job.workers[0].child.poll() is None
        for worker in (job.workers[0], again):
            worker.kill()
            worker.finish()
        assert job.scheduler.finish(15) == 1  # nobody has ended normally


def test_a_killed_worker_is_noticed_in_time_with_the_default_settings() -> None:
    with Job(2, 1, MXOPT_KVSTORE_HEARTBEAT=1, MXOPT_KVSTORE_DEAD_AFTER=10) as job:
        running(job)
        job.workers[0].kill()
        others_fail(job, job.workers[0], "worker 0")


def test_a_worker_whose_script_holds_the_interpreters_lock_is_not_dead() -> None:
    with Job(2, 1, MXOPT_KVSTORE_DEAD_AFTER=1) as job:
        job.run("holding.lock_held", {"seconds": 2.5})


def test_a_stopped_worker_fails_the_job() -> None:
    with Job(2, 1) as job:
        running(job)
        job.workers[1].kill(signal.SIGSTOP)
        others_fail(job, job.workers[1], "worker 1")


def test_a_killed_server_fails_the_job() -> None:
    with Job(2, 2) as job:
        running(job)
        job.servers[1].kill()
        others_fail(job, job.servers[1], "server 1")


def test_a_killed_scheduler_fails_the_job() -> None:
    with Job(1, 1) as job:
        running(job)
        job.scheduler.kill()
        others_fail(job, job.scheduler, "scheduler")


def test_a_worker_that_raises_fails_the_job_with_its_error() -> None:
    with Job(2, 1) as job:
        running(job, **{"raise": 1})
        others_fail(job, None, "this worker raises")


def test_a_worker_that_ends_early_fails_who_waits_for_it() -> None:
    with Job(2, 1) as job:
        running(job, end=1)
        assert job.workers[1].finish(LIMIT_S) == 0
        others_fail(job, job.workers[1], "worker 1 has ended")


def test_a_stopped_server_fails_the_job() -> None:
    with Job(1, 1) as job:
        running(job)
        job.servers[0].child.send_signal(signal.SIGTERM)
        others_fail(job, None, "stopped by SIGTERM")


def test_a_job_that_does_not_come_together_says_who_is_missing() -> None:
    with Job(2, 1) as job:
        job.env["MXOPT_KVSTORE_JOIN_TIMEOUT"] = "2"  # the worker's alone
        worker = job.start_worker(0, "sums")
        assert worker.finish() != 0
        assert "1 of 2 workers and 1 of 1 servers" in worker.output


def test_without_a_scheduler_the_error_names_its_address() -> None:
    env = environment(DMLC_PS_ROOT_PORT=1, MXOPT_KVSTORE_JOIN_TIMEOUT=1)
    worker = Process([*SERVE, "--role", "server"], env)
    assert worker.finish() == 1
    assert "tcp://127.0.0.1:1 doesn't answer" in worker.output


def test_a_worker_of_another_job_or_with_other_counts_is_refused() -> None:
    with Job(2, 1, MXOPT_JOB_ID="today") as job:
        job.env["MXOPT_JOB_ID"] = "yesterday"
        worker = job.start_worker(0, "sums")
        assert worker.finish() != 0
        assert "this is job today" in worker.output
        job.env |= {"MXOPT_JOB_ID": "today", "DMLC_NUM_WORKER": "3"}
        worker = job.start_worker(0, "sums")
        assert worker.finish() != 0
        assert "the job has 2 workers" in worker.output


def test_a_job_resumes_from_the_servers_snapshots(tmp_path: Path) -> None:
    arguments = ("--snapshot", str(tmp_path / "server-RANK"))
    with Job(2, 2, arguments) as job:
        job.run("snapshots", {"first": 0})
        assert job.ended() == [0, 0, 0]
    with Job(2, 2, arguments) as job:
        job.run("snapshots", {"first": -8.5})


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_server_started_again_carries_on_from_its_snapshot_or_says_it_has_lost_the_keys(
    tmp_path: Path, snapshot: bool
) -> None:
    arguments = ("--snapshot", str(tmp_path / "server-RANK"), "--snapshot-every", "0.01") if snapshot else ()
    with Job(1, 1, arguments, MXOPT_KVSTORE_DEAD_AFTER=8) as job:
        worker = job.start_worker(0, "restarted", {"go": str(tmp_path / "go")})
        worker.wait_for("HALFWAY")
        if snapshot:
            deadline = time.monotonic() + 10
            from mxopt.document import load_document

            path = tmp_path / "server-0"
            rounds: list[Any] = []
            while [each["counts"] for each in rounds] != [[2]]:
                entries = load_document(path.read_bytes())["entries"] if path.exists() else []
                rounds = entries[0]["rounds"] if entries else []
                assert time.monotonic() < deadline
        job.servers[0].kill()
        job.servers[0].finish()
        job.servers[0] = job.start_server(0)
        job.servers[0].wait_for("worker 0 is here" if not snapshot else "carries on") if snapshot else None
        (tmp_path / "go").touch()
        code = worker.finish(40)
        if snapshot:
            assert code == 0, worker.output
            assert "[-1.0, -2.0, -3.0, -4.0]" in worker.output
        else:
            assert code != 0
            assert "NotInitialized" in worker.output
