"""What a server says of itself: to `mxopt-server status`, and as Prometheus metrics."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mxopt_server.server import Server


def report(server: Server) -> dict[str, Any]:
    """Plain numbers about a server: what it holds, what it has done, who its workers are."""
    table, now = server.table, time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    groups = set(map(id, table.groups.values()))
    return {
        "role": "server",
        "job": server.job,
        "rank": server.rank,
        "mode": table.mode,
        "uptime": now - server.started,
        "keys": len(table.entries),
        "bytes": sum(e.weight.nbytes for e in table.entries.values()),
        "groups": len(groups),
        "pending": sum(g.have for g in table.groups.values()),
        "updates": table.updates,
        "messages": server.messages,
        "received": server.received,
        "sent": server.sent,
        "refused": server.refusals,
        "optimizer": repr(table.updater.optimizer) if table.updater else None,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        "workers": [
            {
                "rank": w.rank,
                "age": now - w.seen,
                "requests": w.requests,
                "waiting": len(w.waiting),
                "expects": w.expects,
            }
            for _, w in sorted(server.workers.items())
        ],
    }
