"""`mxopt-server status`: how a running job stands, once or as a live table."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import zmq

from mxopt import settings
from mxopt.errors import ArgumentError, DeadlineError
from mxopt.kvstore import messages as m
from mxopt.kvstore import sockets
from mxopt.kvstore.address import check_host
from mxopt.kvstore.keys import Keys, load_keys
from mxopt_server.arguments import Parser
from mxopt_server.logs import printable

TIMEOUT_MS = 3000


def main(arguments: Sequence[str]) -> int:
    """Asks a job's scheduler and servers how things stand, and shows a table."""
    parser = Parser("mxopt-server status", description=main.__doc__)
    parser.add_scheduler()
    parser.add_keys()
    parser.add_argument(
        "--watch", nargs="?", type=float, const=1.0, metavar="S", help="show it again every S seconds (1)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options = parser.parse_args(arguments)
    job = settings.job()
    if options.scheduler:
        job = dataclasses.replace(job, host=options.scheduler[0], port=options.scheduler[1])
    check_host(job.host)
    scheduler = job.scheduler
    keys = load_keys(options.keys or job.keys)
    context = zmq.Context()
    try:
        if options.json:
            print(json.dumps(ask_all(context, scheduler, keys)))
        elif options.watch:
            _watch(context, scheduler, keys, options.watch)
        else:
            _print(ask_all(context, scheduler, keys))
    finally:
        context.destroy(0)
    return 0


def ask(context: Any, endpoint: str, keys: Keys | None) -> dict[str, Any]:
    """The report of the process at `endpoint`. Raises DeadlineError where it doesn't answer."""
    socket = sockets.connect(context, endpoint, keys)
    try:
        socket.send_multipart(m.encode(m.Inquire()))
        if not socket.poll(TIMEOUT_MS):
            raise DeadlineError(f"{endpoint} doesn't answer")
        answer = m.decode(socket.recv_multipart())
    finally:
        socket.close(0)
    if not isinstance(answer, m.Report):
        raise DeadlineError(f"{endpoint} answered with {answer}")
    return answer.content


def scheduler_report(endpoint: str, keys: str) -> dict[str, Any]:
    """The report of the scheduler at `endpoint`, asked with the keys of a file. Raises DeadlineError where it doesn't
    answer."""
    context = zmq.Context()
    try:
        return ask(context, endpoint, load_keys(keys))
    finally:
        context.destroy(0)


def ask_all(context: Any, scheduler: str, keys: Keys | None) -> dict[str, Any]:
    """The scheduler's report with those of its servers, `None` for one that doesn't answer."""
    found = ask(context, scheduler, keys)
    found["servers"] = []
    for node in found["nodes"]:
        if node["role"] == "server" and node["state"] == "alive":
            try:
                found["servers"].append(ask(context, node["endpoint"], keys))
            except DeadlineError:
                found["servers"].append(None)
    return found


def _watch(context: Any, scheduler: str, keys: Keys | None, every: float) -> None:
    try:
        from rich.live import Live
    except ImportError as error:
        raise ArgumentError("--watch needs the package rich: pip install rich") from error
    before: dict[str, Any] | None = None
    with Live(auto_refresh=False) as live:
        while True:
            try:
                now = ask_all(context, scheduler, keys)
            except DeadlineError:
                if before is None:
                    raise
                live.console.print("the scheduler doesn't answer any more: the job is over")
                return
            live.update(table(now, before, every), refresh=True)
            if now["state"] in ("failed", "finished"):
                return
            before = now
            time.sleep(every)


def _print(found: dict[str, Any]) -> None:
    try:
        from rich.console import Console
    except ImportError:
        print(json.dumps(found, indent=1))
        return
    Console().print(table(found, None, 1))


def table(found: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Any:
    """The reports as a rich table; rates since the reports `before`."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(printable(f"job {found['job']}: {found['state']} {found['text']}"))  # never markup
    servers = Table(title=title, title_justify="left")
    columns = (
        "server",
        "keys",
        "MiB",
        "updates",
        "rate/s",
        "MiB/s in",
        "pending",
        "refused",
        "memory MiB",
        "CPU s",
        "optimizer",
    )
    for name in columns:
        servers.add_column(name, justify="right")
    old = {s["rank"]: s for s in before["servers"] if s} if before else {}
    for s in found["servers"]:
        if s is None:
            servers.add_row("no answer", *[""] * (len(columns) - 1))
            continue
        was = old.get(s["rank"], s)
        servers.add_row(
            str(s["rank"]), str(s["keys"]), f"{s['bytes'] / 2**20:.1f}", str(s["updates"]),
            f"{(s['updates'] - was['updates']) / seconds:.0f}",
            f"{(s['received'] - was['received']) / seconds / 2**20:.1f}",
            str(s["pending"]), str(s["refused"]), f"{s['memory'] / 2**20:.0f}", f"{s['cpu']:.1f}",
            Text(printable(str(s["optimizer"]))),
        )  # fmt: skip
    nodes = Table()
    for name in ("process", "state", "last heard, s", "where"):
        nodes.add_column(name)
    for n in found["nodes"]:
        nodes.add_row(f"{n['role']} {n['rank']}", n["state"], f"{n['age']:.1f}", Text(printable(n["name"])))
    return Group(servers, nodes)
