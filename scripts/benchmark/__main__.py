"""The command line of the benchmark; `scripts/bench --help` says it all."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark import cases, contention, driver, environments, machine, startup, tables, targets, terminal
from benchmark.driver import Pace, Result
from benchmark.protocol import Worker, WorkerError
from benchmark.rows import cases as all_cases

QUICK = Pace(turn=0.03, trial=0.02, row=1.5, rounds=4, slow_rounds=2, patience=20)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Times local updates of mxopt, of its peers, and of a kernel that only touches the same arrays:"
        " all systems in turn, with the same threads, so that ratios within one run can be trusted."
        " `scripts/bench kvstore` measures the parameter server.",
    )
    p.add_argument("--setup", action="store_true", help=f"make the peers' environments in {environments.folder()}")
    p.add_argument("--python", action="append", default=[], metavar="SYSTEM=PATH", help="the Python that has a peer")
    p.add_argument("--systems", help="which to run (default: all; with --quick one form of mxopt, no MindSpore)")
    p.add_argument("--only", action="append", metavar="PATTERN", help="rows KIND/OPTIMIZER, e.g. 'dense/*', '*/adam'")
    p.add_argument("--quick", action="store_true", help="a few rows, in less than two minutes")
    p.add_argument(
        "--threads", type=int, default=min(2, len(machine.usable_cores())), help="of each system (%(default)s)"
    )
    p.add_argument("--scale", type=float, default=1.0, help="make the large arrays this much smaller, to try things")
    p.add_argument("--seconds", type=float, help=f"for the rounds of a row, at most ({Pace().row:g})")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    p.add_argument("--plot", type=Path, metavar="FILE", help="write a picture (PNG)")
    p.add_argument("--check", action="store_true", help="compare with the targets; exit with 1 if one is missed")
    p.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing, read what --json wrote, or for --plot a page like docs/performance.md",
    )
    p.add_argument("--list", action="store_true", help="list the rows and stop")
    options = p.parse_args(given)
    try:
        options.python = {environments.system(n): path for n, _, path in (x.partition("=") for x in options.python)}
        skipped = ("experimental", "nn", "tensors", "mindspore") if options.quick else ()  # MindSpore compiles long
        default = ",".join(name for name in environments.SYSTEMS if name not in skipped)
        options.systems = [environments.system(name) for name in (options.systems or default).split(",")]
    except ValueError as error:
        p.error(str(error))
    return options


def main(given: list[str] | None = None) -> int:
    options, console = arguments(given), terminal.console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` interrupts, as Ctrl-C does
    if options.setup:
        environments.set_up([name for name in options.systems if name in environments.MADE])
        return 0
    if options.list:
        print("\n".join(f"{kind}/{row}" for kind, row in plan(options)))
        return 0
    if options.source and options.source.suffix == ".md":
        from benchmark import page, plot

        if not options.plot or options.json or options.markdown or options.check:
            raise SystemExit("scripts/bench: a page with tables (--from FILE.md) is for --plot only")
        text = options.source.read_text()
        plot.save(page.ratios(text), options.plot, page.about(text))
        return 0
    result = json.loads(options.source.read_text()) if options.source else measure(options, console)
    rows = [driver.make_result(row) for row in result["rows"]]
    if options.source:
        for table in tables.by_kind(rows):
            console.print(terminal.rich(table))
    return report(options, console, result, rows)


def report(options: argparse.Namespace, console: Console, result: dict[str, Any], rows: list[Result]) -> int:
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    if options.markdown:
        options.markdown.write_text(tables.markdown(rows, result["machine"], result["versions"]))
    if options.plot:
        from benchmark import plot

        about = result["machine"]
        plot.save(plot.ratios(rows), options.plot, machine.where_and_when(about, about["threads"]))
    if not options.check:
        return 0
    verdicts = targets.check(rows)
    console.print(terminal.rich(tables.verdicts(verdicts)))
    return int(any(verdict.missed for verdict in verdicts))


def plan(options: argparse.Namespace) -> dict[tuple[str, str], cases.Case | None]:
    """The rows that are wanted, in order; those of `startup` have no case."""
    rows: dict[tuple[str, str], cases.Case | None] = {
        (case.kind, case.optimizer): case for case in all_cases(options.quick, options.scale)
    }
    rows[("startup", "adam")] = None
    return {k: v for k, v in rows.items() if not options.only or any(fnmatch("/".join(k), p) for p in options.only)}


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All that the options ask for, as plain data; of a run that is interrupted, what there is."""
    pythons = {n: p for n, p in environments.pythons(options.python).items() if n in options.systems}
    cores = machine.usable_cores()[: options.threads]
    wanted, rows = plan(options), []
    about = {**machine.describe(), "threads": options.threads, "scale": options.scale, "quick": options.quick}
    with crew(pythons, options.threads, cores, console) as workers, terminal.Screen(console, len(wanted)) as screen:
        versions = {name: worker.ask("hello")["version"] for name, worker in workers.items()}
        try:
            for (kind, optimizer), case in wanted.items():
                screen.begin(kind, optimizer)
                found = measure_row(options, case, workers, pythons, cores, screen)
                rows += found
                screen.add(*found)
                revive(workers, pythons, options.threads, cores)
        except KeyboardInterrupt:
            console.print("[yellow]interrupted")
    return {"machine": about, "versions": versions, "rows": [row.plain() for row in rows]}


def measure_row(
    options: argparse.Namespace,
    case: cases.Case | None,
    workers: dict[str, Worker],
    pythons: dict[str, str],
    cores: list[int],
    screen: terminal.Screen,
) -> list[Result]:
    """The rows of a case, one but for start-up."""
    speed = pace(options)
    if case is None:
        there, rounds = {n: pythons[n] for n in workers if n in startup.SNIPPETS}, 1 if options.quick else 7
        return startup.run(
            there, options.threads, cores, rounds, options.quick, lambda now: screen.begin("startup", now)
        )
    if case.kind == "busy":
        return [contention.run(case, workers, pythons.get("mxopt", sys.executable), cores, speed)]
    return [driver.run(case, workers, speed)]


def pace(options: argparse.Namespace) -> Pace:
    chosen, limit = QUICK if options.quick else Pace(), options.seconds
    if limit is None:
        return chosen
    return replace(chosen, row=limit, turn=min(chosen.turn, limit), trial=min(chosen.trial, limit))


@contextmanager
def crew(pythons: dict[str, str], threads: int, cores: list[int], console: Console) -> Iterator[dict[str, Worker]]:
    """A worker for each system; one that can't be started is reported and left out."""
    workers = {name: Worker(name, python, threads, cores) for name, python in pythons.items()}
    try:
        for name, worker in list(workers.items()):
            try:
                worker.ask("hello")
            except WorkerError as error:
                console.print(f"[yellow]left out: {error}", highlight=False)
                workers.pop(name).close()
        yield workers
    finally:
        with ExitStack() as stack:
            for worker in workers.values():
                stack.callback(worker.close)


def revive(workers: dict[str, Worker], pythons: dict[str, str], threads: int, cores: list[int]) -> None:
    """Starts those workers again that have ended."""
    for name, worker in list(workers.items()):
        if not worker.alive:
            worker.close()
            workers[name] = Worker(name, pythons[name], threads, cores)


if __name__ == "__main__":
    sys.exit(main())
