"""How a server and a job stand, as plain data: for `mxopt-server status`, and as Prometheus
metrics."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from mxopt.typing import Plain

if TYPE_CHECKING:
    from mxopt_server.scheduler import Scheduler
    from mxopt_server.server import Server


def of_server(server: Server) -> Plain:
    """What a server holds, what it has done, who its workers are."""
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
        "bytes": sum(e.nbytes for e in entries),
        "groups": len(set(map(id, groups))),
        "pending": sum(len(g.rounds.open) for g in groups),
        "updates": server.applier.updates,
        "messages": server.messages,
        "received": server.received,
        "sent": server.answers.sent,
        "lost": server.members.lost,
        "refused": server.answers.refusals,
        "handling": server.handling.report(),
        "waiting": server.handshakes.waiting.report(),
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


def of_scheduler(scheduler: Scheduler) -> Plain:
    """How a job stands, and who is in it."""
    course, roster = scheduler.course, scheduler.roster
    now = course.clock()
    nodes = [
        {"role": n.role, "rank": n.rank, "name": n.name, "state": n.state, "endpoint": n.endpoint,
         "age": now - n.seen, "epoch": n.epoch, "lost": n.lost}
        for n in roster
    ]  # fmt: skip
    return {
        "role": "scheduler", "job": roster.job, "mode": roster.mode, "state": course.state, "text": course.text,
        "nodes": nodes, "handling": scheduler.handling.report(),
    }  # fmt: skip
