"""The numbers of a server or scheduler as Prometheus metrics, by the package prometheus_client."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from mxopt.errors import ArgumentError
from mxopt.typing import Plain

if TYPE_CHECKING:
    from prometheus_client import core  # type: ignore[import-not-found,unused-ignore]

# Of a report: the number, its unit, and what it is.
GAUGES = {
    "keys": ("keys", "", "keys held"),
    "bytes": ("values", "bytes", "size of the values held"),
    "pending": ("pending_pushes", "", "pushes that wait for those of other workers"),
    "memory": ("peak_memory", "bytes", "peak of the memory in use"),
    "uptime": ("uptime", "seconds", "time since the process joined the job"),
}
COUNTERS = {
    "updates": ("updates", "", "updates of keys, and of each piece of a large one"),
    "messages": ("messages", "", "messages taken"),
    "received": ("received", "bytes", "data received"),
    "sent": ("sent", "bytes", "data sent"),
    "refused": ("refused_requests", "", "requests answered with an error"),
    "cpu": ("cpu", "seconds", "CPU time of the process"),
}
LATENCIES = {
    "handling": ("handling", "from a message's arrival until the next can be taken"),
    "waiting": ("waiting", "from the arrival of a request that may have to wait for other workers until its answer"),
}
JOB_STATES = ("gathering", "running", "finished", "failed")


def check(host: str) -> None:
    """Raises ArgumentError without prometheus_client, and where `check_host` does."""
    try:
        import prometheus_client  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        needs = "--metrics-port needs the package prometheus_client: pip install 'mxopt[metrics]'"
        raise ArgumentError(needs) from error
    check_host(host)


def check_host(host: str) -> None:
    """Raises ArgumentError for a host that doesn't exist."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"--metrics-host {host!r} can't be resolved: {error}") from None


def serve(report: Callable[[], Plain], host: str, port: int) -> None:
    """Serves what `report` says, a `Server`'s or a `Scheduler`'s, from a thread. Raises
    ArgumentError where it can't be served there, or `check` would."""
    check(host)
    from prometheus_client import CollectorRegistry, start_http_server  # type: ignore[import-not-found,unused-ignore]

    registry = CollectorRegistry()
    registry.register(Collector(report))
    try:
        start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        hint = f"; servers of one machine need a port each: --metrics-port {port}+RANK" if taken else ""
        raise ArgumentError(f"metrics can't be served at {host}:{port}: {error}{hint}") from None


class Collector:
    """Makes metrics of a report whenever they are asked for."""

    def __init__(self, report: Callable[[], Plain]) -> None:
        self._report = report

    def collect(self) -> Iterator[core.Metric]:
        """The families of metrics, as prometheus_client wants them."""
        numbers = self._report()
        yield from _of_server(numbers) if numbers["role"] == "server" else _of_scheduler(numbers)


def _of_server(numbers: Plain) -> Iterator[core.Metric]:
    from prometheus_client import core

    labels = {"job": numbers["job"], "server": str(numbers["rank"])}
    for family, table in ((core.GaugeMetricFamily, GAUGES), (core.CounterMetricFamily, COUNTERS)):
        for name, (called, unit, text) in table.items():
            made = family(f"mxopt_server_{called}", text, labels=list(labels), unit=unit)
            made.add_metric(list(labels.values()), numbers[name])
            yield made
    yield from _latencies("mxopt_server", numbers, labels)
    workers = [*labels, "worker"]
    requests = core.CounterMetricFamily("mxopt_server_worker_requests", "requests taken of a worker", labels=workers)
    waiting = core.GaugeMetricFamily(
        "mxopt_server_worker_waiting_requests", "requests of a worker that wait for other workers", labels=workers
    )
    for worker in numbers["workers"]:
        values = [*labels.values(), str(worker["rank"])]
        requests.add_metric(values, worker["requests"])
        waiting.add_metric(values, worker["waiting"])
    yield requests
    yield waiting


def _of_scheduler(numbers: Plain) -> Iterator[core.Metric]:
    from prometheus_client import core

    job = numbers["job"]
    states = core.GaugeMetricFamily("mxopt_scheduler_job", "1 for the state of the job", labels=["job", "state"])
    for state in JOB_STATES:
        states.add_metric([job, state], int(numbers["state"] == state))
    yield states
    labels = ["job", "role", "rank"]
    alive = core.GaugeMetricFamily("mxopt_scheduler_process_alive", "1, or 0 for one that has ended", labels=labels)
    silent = core.GaugeMetricFamily(
        "mxopt_scheduler_process_silence", "time since a process was last heard", labels=labels, unit="seconds"
    )
    for node in numbers["nodes"]:
        values = [job, node["role"], str(node["rank"])]
        alive.add_metric(values, int(node["state"] == "alive"))
        silent.add_metric(values, node["age"])
    yield alive
    yield silent
    yield from _latencies("mxopt_scheduler", numbers, {"job": job})


def _latencies(prefix: str, numbers: Plain, labels: dict[str, str]) -> Iterator[core.Metric]:
    from prometheus_client import core

    for name, (called, text) in LATENCIES.items():
        if name not in numbers:
            continue
        found = numbers[name]
        ends = [*(f"{bound:g}" for bound in found["bounds"]), "+Inf"]
        buckets = list(zip(ends, accumulate(found["counts"]), strict=True))
        made = core.HistogramMetricFamily(f"{prefix}_{called}", text, labels=list(labels), unit="seconds")
        made.add_metric(list(labels.values()), buckets, found["seconds"])
        yield made
