"""`mxopt-server status`: how a running job stands, once or as a live table."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import zmq

from mxopt import settings
from mxopt.errors import ArgumentError, DeadlineError, printable
from mxopt.kvstore import messages as m, sockets
from mxopt.kvstore.address import check_host
from mxopt.kvstore.keys import KeyPair, load_keys
from mxopt.typing import Plain
from mxopt_server.arguments import Parser, for_a_reader, seconds

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

TIMEOUT_MS = 3000
RATES_S = 0.5  # over which the rates of a single look are taken
OVER = ("failed", "finished")  # states of a job


def main(arguments: Sequence[str]) -> int:
    """Asks a job's scheduler and servers how things stand, and shows a table."""
    parser = Parser("mxopt-server status", description=main.__doc__)
    parser.add_scheduler()
    parser.add_keys()
    parser.add_argument(
        "--watch", nargs="?", type=seconds, const=1.0, metavar="S", help="show it again every S seconds (1)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, with --watch a line each time")
    options = parser.parse_args(arguments)
    job = settings.job()
    if options.scheduler:
        job = dataclasses.replace(job, host=options.scheduler[0], port=options.scheduler[1])
    check_host(job.host)
    scheduler = job.scheduler
    keys = load_keys(options.keys or job.keys)
    context = zmq.Context()
    try:
        with for_a_reader():
            if options.json and options.watch is None:
                print(json.dumps(ask_all(context, scheduler, keys)))
            elif options.json:
                for now in _looks(context, scheduler, keys, options.watch):
                    print(json.dumps(now), flush=True)
            elif options.watch is not None:
                _watch(context, scheduler, keys, options.watch)
            else:
                _print(context, scheduler, keys)
    finally:
        context.destroy(0)
    return 0


def ask(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: KeyPair | None) -> Plain:
    """The report of the process at `endpoint`. Raises DeadlineError if it doesn't answer."""
    socket = sockets.connect(context, endpoint, keys)
    try:
        socket.send_multipart(m.encode(m.Inquire()))
        if not socket.poll(TIMEOUT_MS):
            hint = "; mxopt-launch prints where a job's scheduler is, for --scheduler"
            raise DeadlineError(f"{endpoint} doesn't answer{hint}")
        answer = m.decode(socket.recv_multipart())
    finally:
        socket.close(0)
    if not isinstance(answer, m.Report):
        raise DeadlineError(f"{endpoint} answered with {answer}")
    return answer.content


def scheduler_report(endpoint: str, keys: str) -> Plain:
    """The report of the scheduler at `endpoint`, asked with the keys of a file. Raises
    DeadlineError where it doesn't answer."""
    context = zmq.Context()
    try:
        return ask(context, endpoint, load_keys(keys))
    finally:
        context.destroy(0)


def tell_gone(endpoint: str, keys: str, job: str, role: str, rank: int, why: str = "") -> None:
    """Tells the scheduler at `endpoint` that a process of its job has exited; with `why` also that
    nobody comes in its place. Raises DeadlineError if that doesn't answer."""
    context = zmq.Context()
    socket = sockets.connect(context, endpoint, load_keys(keys))
    try:
        socket.send_multipart(m.encode(m.Gone(job, role, rank, why)))
        if not socket.poll(TIMEOUT_MS):
            raise DeadlineError(f"{endpoint} doesn't answer")
    finally:
        socket.close(0)
        context.destroy(0)


def ask_all(context: zmq.Context[zmq.Socket[bytes]], scheduler: str, keys: KeyPair | None) -> Plain:
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


def _watch(context: zmq.Context[zmq.Socket[bytes]], scheduler: str, keys: KeyPair | None, every: float) -> None:
    try:
        from rich.live import Live
    except ImportError as error:
        raise ArgumentError("--watch needs the package rich: pip install rich") from error
    before: Plain | None = None
    with Live(auto_refresh=False) as live:
        for now in _looks(context, scheduler, keys, every):
            live.update(tables(now, before, live.console.width), refresh=True)
            before = now
        if before is not None and before["state"] not in OVER:
            live.console.print("the scheduler doesn't answer any more: the job is over")


def _looks(
    context: zmq.Context[zmq.Socket[bytes]], scheduler: str, keys: KeyPair | None, every: float
) -> Iterator[Plain]:
    """The reports, one every `every` seconds until the job is over. Raises DeadlineError if there
    is no scheduler to begin with."""
    yield (now := ask_all(context, scheduler, keys))
    while now["state"] not in OVER:
        time.sleep(every)
        try:
            yield (now := ask_all(context, scheduler, keys))
        except DeadlineError:
            return


def _print(context: zmq.Context[zmq.Socket[bytes]], scheduler: str, keys: KeyPair | None) -> None:
    """Prints the reports, with the rates of a short time."""
    before = now = ask_all(context, scheduler, keys)
    if any(before["servers"]):
        time.sleep(RATES_S)
        now = ask_all(context, scheduler, keys)
    try:
        from rich.console import Console
    except ImportError:
        print("mxopt-server: shown as JSON, since tables need the package rich: pip install rich", file=sys.stderr)
        print(json.dumps(now, indent=1))
        return
    console = Console()
    console.print(tables(now, before, console.width))


SERVER = ("server", "keys", "MiB", "updates", "per s", "MiB/s", "pending", "refused")
PROCESS = ("process", "state", "heard", "memory", "CPU", "where")
TABLES = 80  # columns


def tables(found: Plain, before: Plain | None, width: int) -> Group:
    """The reports as tables, which take 80 columns, or where there are less as lines; rates are
    those since the reports `before`."""
    from rich.console import Group
    from rich.text import Text

    title = Text(printable(f"job {found['job']}: {found['state']} {found['text']}".rstrip()))  # never markup
    old = {s["rank"]: s for s in before["servers"] if s} if before else {}
    known = {s["rank"]: s for s in found["servers"] if s}
    numbers: list[list[str]] = []
    processes: list[list[str]] = []
    optimizers: dict[str, list[int]] = {}
    for n in sorted(found["nodes"], key=lambda n: (n["role"], n["rank"])):
        memory = cpu = ""
        if n["role"] == "server":
            s = known.get(n["rank"])
            if s is None:
                n = {**n, "state": "no answer"} if n["state"] == "alive" else n
            else:
                numbers.append(_numbers(s, old.get(s["rank"], s)))
                optimizers.setdefault(printable(str(s["optimizer"])), []).append(s["rank"])
                memory, cpu = f"{s['memory'] / 2**20:.0f} MiB", f"{s['cpu']:.1f} s"
        name = f"{n['role']} {n['rank']}"
        processes.append([name, n["state"], f"{n['age']:.1f} s ago", memory, cpu, printable(n["name"])])
    said = [f"optimizer of {_ranks(ranks, len(known))}: {what}" for what, ranks in optimizers.items()]
    for n in found["nodes"]:
        if n.get("lost"):
            said.append(f"server {n['rank']} came back from its last checkpoint: {n['lost']} pushes are lost")
    lines = [_filled(line, width) for line in said]
    if width < TABLES:
        return Group(title, *_lines(SERVER, numbers, width), *lines, *_lines(PROCESS, processes, width))
    return Group(title, _table(SERVER, numbers, "right"), *lines, _table(PROCESS, processes, "left"))


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[Text]:
    """A row as a paragraph: each number behind its heading."""
    for row in rows:
        said = ", ".join(f"{name} {cell}" for name, cell in zip(columns, row, strict=True) if cell)
        yield _filled(said.removeprefix("process "), width)


def _filled(text: str, width: int) -> Text:
    """A paragraph whose lines but the first are indented."""
    from rich.text import Text

    return Text(textwrap.fill(text, width, subsequent_indent="  "))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], justify: Literal["left", "right"]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name, justify=justify, overflow="fold")  # nothing is cut off
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _numbers(now: Plain, was: Plain) -> list[str]:
    """A server's row; rates by its own clock."""
    seconds = now["uptime"] - was["uptime"]
    rate, received = (
        (now[name] - was[name]) / seconds if seconds > 0 else float("nan") for name in ("updates", "received")
    )
    return [
        str(now["rank"]), str(now["keys"]), f"{now['bytes'] / 2**20:.1f}", str(now["updates"]),
        _shown(rate, 0), _shown(received / 2**20, 1), str(now["pending"]), str(now["refused"]),
    ]  # fmt: skip


def _shown(rate: float, digits: int) -> str:
    return "" if rate != rate or rate < 0 else f"{rate:.{digits}f}"  # a server that has come back begins with 0


def _ranks(ranks: Sequence[int], servers: int) -> str:
    return "all servers" if len(ranks) == servers else f"server {', '.join(map(str, ranks))}"
