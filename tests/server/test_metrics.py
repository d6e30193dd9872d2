"""Metrics, as Prometheus's own parsers read them: of launched jobs, and of single processes."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Job, Process, environment
from mxopt_server.latency import BOUNDS, Latency

pytest.importorskip("prometheus_client")
from prometheus_client.openmetrics.parser import text_string_to_metric_families

FOREVER = [sys.executable, str(WORKERS), "forever", '{"mode": "dist_sync"}']


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports, all of them free."""
    while True:
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as stack:
            first: int = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def families(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://{host}:{port}/metrics", headers=accept), timeout=10
    ) as page:
        return {family.name: family for family in text_string_to_metric_families(page.read().decode())}


def on_the_page() -> set[str]:
    """The names of metrics in the table of docs/servers.md, where a prefix is said once a row."""
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
    found: set[str] = set()
    for row in re.findall(r"^\| (`mxopt_.*?) \|", page, re.MULTILINE):
        names = re.findall(r"`(\w+)`", row)
        prefix = "_".join(names[0].split("_")[:2])
        found |= {name if name.startswith(prefix) else prefix + name for name in names if "_" in name}
    return {name.removesuffix("_total") for name in found}


def test_a_launched_job_serves_its_schedulers_and_its_servers_metrics(tmp_path: Path) -> None:
    first = free_ports(3)
    options = [
        "-n",
        "1",
        "-s",
        "2",
        "--run-dir",
        str(tmp_path),
        "--metrics-port",
        str(first),
        "--metrics-host",
        "127.0.0.2",
    ]
    process = Process([*LAUNCH, *options, *FOREVER], environment())
    try:
        process.wait_for("RUNNING")
        scheduler, *servers = (families(first + k, "127.0.0.2") for k in range(3))
        job = scheduler["mxopt_scheduler_job"].samples[0].labels["job"]
        states = {s.labels["state"]: s.value for s in scheduler["mxopt_scheduler_job"].samples}
        assert states == {"gathering": 0, "running": 1, "finished": 0, "failed": 0}
        alive = {
            (s.labels["role"], s.labels["rank"]): s.value for s in scheduler["mxopt_scheduler_process_alive"].samples
        }
        assert alive == {("worker", "0"): 1, ("server", "0"): 1, ("server", "1"): 1}
        for rank, found in enumerate(servers):
            assert found["mxopt_server_keys"].samples[0].labels == {"job": job, "server": str(rank)}
        assert sum(found["mxopt_server_keys"].samples[0].value for found in servers) == 1
        assert {*scheduler, *servers[0]} == on_the_page()
    finally:
        process.child.terminate()
        process.finish()


def test_every_metric_has_a_job_and_its_unit_and_latencies_are_histograms() -> None:
    port = free_ports(1)
    with Job(2, 1, ("--metrics-port", str(port))) as job:
        for rank in range(2):
            job.start_worker(rank, "forever", {"mode": "dist_sync"})
        for worker in job.workers:
            worker.wait_for("RUNNING")
        found = families(port)
    for family in found.values():
        assert family.name.endswith(family.unit), family.name
        assert all({"job", "server"} <= sample.labels.keys() for sample in family.samples), family.name
    units = {family.unit for family in found.values()}
    assert units == {"", "bytes", "seconds"}
    for name in ("mxopt_server_handling_seconds", "mxopt_server_waiting_seconds"):
        samples = {(s.name.removeprefix(name), s.labels.get("le")): s.value for s in found[name].samples}
        assert samples["_count", None] == samples["_bucket", "+Inf"] > 0
        assert samples["_sum", None] > 0
    assert found["mxopt_server_updates"].type == "counter"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Job(1, 1) as job:
        port = taken.getsockname()[1]
        server = job.start([*SERVE, "--role", "scheduler", "--port", "0", "--metrics-port", str(port)])
        assert server.finish() == 2
        assert f"127.0.0.1:{port}: " in server.output
        assert f"--metrics-port {port}+RANK" in server.output


def test_durations_fall_into_their_classes() -> None:
    latency = Latency()
    for seconds in (0.0, BOUNDS[0], BOUNDS[1], 2 * BOUNDS[-1]):
        latency.add(seconds)
    counts = latency.report()["counts"]
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert latency.seconds == pytest.approx(BOUNDS[0] + BOUNDS[1] + 2 * BOUNDS[-1])
