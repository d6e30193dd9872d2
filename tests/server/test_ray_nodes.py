"""A Ray cluster that loses a node under a job."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from jobs import LAUNCH, WORKERS, Process, environment
from test_durability import JOB, ROUNDS, expected

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")
Cluster = pytest.importorskip("ray.cluster_utils").Cluster

DEADLINE_S = 180  # where the machine is busy, Ray takes a minute to start the processes of a job


def test_servers_of_a_lost_node_come_back_with_their_journal_and_the_job_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mxopt_server.ray_servers import Servers

    for name, value in environment(MXOPT_KVSTORE_DEAD_AFTER=10, MXOPT_KVSTORE_JOIN_TIMEOUT=DEADLINE_S).items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        kept = ["--insecure", "--durability", "journal", "--state-dir", str(tmp_path / "state")]
        with Servers(2, 2, *kept, run_dir=tmp_path / "run") as job:  # one server has no place yet, the scheduler has
            lost = cluster.add_node(num_cpus=1)
            half = tmp_path / f"pause-{ROUNDS // 2}"
            os.mkfifo(half)
            command = [sys.executable, str(JOB), str(ROUNDS), str(tmp_path)]
            workers = [Process(command, {**os.environ, **job.seat(rank).variables}) for rank in range(2)]
            try:
                workers[0].wait_for("PAUSED", DEADLINE_S)
                cluster.remove_node(lost, allow_graceful=False)
                cluster.add_node(num_cpus=1)
                half.write_bytes(b"")  # go on
                assert [worker.finish(DEADLINE_S) for worker in workers] == [0, 0], "\n".join(w.output for w in workers)
            finally:
                for worker in workers:
                    worker.kill()
        assert f"ENDED {expected()} 0" in workers[0].output
        logs = [path.read_text() for path in (tmp_path / "run").glob("server-*.log")]
        assert sum("goes on from checkpoint" in log for log in logs) == 1
    finally:
        ray.shutdown()
        cluster.shutdown()


def processes(job: Path) -> list[Any]:
    """What runs of a job, by the folder that stands in its command lines."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(job) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.parametrize("mode", ["dist_sync", "dist_async"])
def test_a_job_whose_workers_are_lost_with_their_node_ends_with_an_error_that_names_them(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = environment(MXOPT_KVSTORE_DEAD_AFTER=10, MXOPT_KVSTORE_JOIN_TIMEOUT=DEADLINE_S)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        options = ["-n", "2", "-s", "1", "--launcher", "ray", "--insecure", "--run-dir", str(tmp_path / "run")]
        options += ["--state-dir", str(tmp_path / "state")]
        work = [sys.executable, str(WORKERS), "forever", f'{{"mode": "{mode}"}}', str(tmp_path)]
        lost = cluster.add_node(num_cpus=2)  # on which there will be one of the workers, or both
        job = Process([*LAUNCH, *options, *work], {**settings, "RAY_ADDRESS": cluster.address})
        try:
            for rank in range(2):
                job.wait_for(f"[worker-{rank}] RUNNING", DEADLINE_S)
            running = processes(tmp_path)
            assert len(running) >= 4  # launcher, server, two workers
            cluster.remove_node(lost, allow_graceful=False)
            assert job.finish(DEADLINE_S) == 1, job.output
        finally:
            job.kill()
        assert "mxopt-launch: Ray has lost the process of worker-" in job.output
        assert re.search(r"^mxopt-launch: (worker-\d|server-0|scheduler) failed", job.output, re.MULTILINE), job.output
        assert not psutil.wait_procs(running, 15)[1]
    finally:
        cluster.shutdown()
