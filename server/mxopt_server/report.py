"""What a server says of itself: to `mxopt-server status`, and as Prometheus metrics."""

from __future__ import annotations

import resource
from typing import Any


def report(server: Any) -> dict[str, Any]:
    """Plain numbers about a `Server`: what it holds, what it has done, who its workers are."""
    values, served, now = server.values, server.served, server.clock()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # A thread that serves metrics asks too: what it goes through is taken at once.
    entries, groups = list(values.entries.values()), list(values.groups.values())
    return {
        "role": "server",
        "job": server.job,
        "rank": server.rank,
        "mode": server.members.mode,
        "uptime": now - server.started,
        "keys": len(entries),
        "bytes": sum(e.weight.nbytes for e in entries),
        "groups": len(set(map(id, groups))),
        "pending": sum(len(g.rounds.open) for g in groups),
        "updates": server.applier.updates,
        "messages": server.messages,
        "received": server.received,
        "sent": server.answers.sent,
        "refused": server.answers.refusals,
        "handling": server.handling.report(),
        "waiting": server.waiting.report(),
        "optimizer": repr(served.updater.optimizer) if served.updater else None,
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
            for _, w in sorted(server.sessions.items())
        ],
    }
