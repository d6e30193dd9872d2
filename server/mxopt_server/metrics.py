"""A server's numbers as Prometheus metrics, by the package prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mxopt.errors import ArgumentError
from mxopt_server.report import report
from mxopt_server.server import Server

GAUGES = {
    "keys": "keys held", "bytes": "bytes of values held", "pending": "contributions that wait for others",
    "memory": "peak resident memory in bytes",
}  # fmt: skip
COUNTERS = {
    "updates": "updates applied", "messages": "messages taken", "received": "bytes received", "sent": "bytes sent",
    "refused": "requests refused", "cpu": "seconds of CPU",
}  # fmt: skip


def serve(server: Server, port: int) -> None:
    """Serves the metrics on loopback, from a thread. Raises ArgumentError without prometheus_client."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # type: ignore[import-not-found,unused-ignore]
        from prometheus_client.core import (  # type: ignore[import-not-found,unused-ignore]
            CounterMetricFamily,
            GaugeMetricFamily,
        )
    except ImportError as error:
        raise ArgumentError("--metrics-port needs the package prometheus_client: pip install mxopt[metrics]") from error

    class Collector:
        def collect(self) -> Iterator[Any]:
            numbers = report(server)
            rank = [str(server.rank)]
            for kind, names in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
                for name, text in names.items():
                    family = kind(f"mxopt_server_{name}", text, labels=["server"])
                    family.add_metric(rank, numbers[name])
                    yield family
            ages = GaugeMetricFamily("mxopt_server_worker_requests", "requests taken", labels=["server", "worker"])
            for worker in numbers["workers"]:
                ages.add_metric([*rank, str(worker["rank"])], worker["requests"])
            yield ages

    registry = CollectorRegistry()
    registry.register(Collector())
    start_http_server(port, "127.0.0.1", registry)
