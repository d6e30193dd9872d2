"""What a job's durability costs a round: `scripts/bench kvstore-durability --help` says it all."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import mxopt
from benchmark import machine, tables, terminal
from benchmark.kvstore import endurance
from benchmark.kvstore.__main__ import ROOT, Processes, endpoint_of
from benchmark.kvstore.cases import CASES, SETUPS, Setup
from benchmark.kvstore.worker import timed, used
from mxopt import kvstore

ABOUT = """A round is a pushpull of all keys under sgd with momentum, by every worker at once. Jobs of
each durability take turns, in several passes; a ratio is the median over the passes of a job's mean
round to that of the job without durability in the same pass: what the disk does every now and then
counts. The jobs' state is in the folder for temporary files (TMPDIR), which should be on a disk as
a job's would be. With --minutes one job under a journal is that long, between two short ones
without durability: its rounds, its files and the servers' memory are told for each fifth of the
time."""

KINDS = {
    "none": [],
    "snapshot, every 3 s": ["--durability", "snapshot", "--snapshot-every", "3"],
    "journal": ["--durability", "journal"],
    "journal --fsync": ["--durability", "journal", "--fsync"],
}
USUAL = ("latency", "resnet50", "large")


def job(options: list[str], setup: Setup, run: Callable[[list[int], Path], list[str]]) -> Any:
    """What worker 0 says of a job: all run what `run` makes of the servers' process
    numbers and the folder of the job's state."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")])
    env = dict(os.environ, PYTHONPATH=path, DMLC_NUM_WORKER=str(setup.workers), DMLC_NUM_SERVER=str(setup.servers))
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        state = ["--state-dir", f"{folder}/state"] if options else []
        command = [sys.executable, "-m", "mxopt_server", "--log-level", "ERROR", *options, *state]
        env["DMLC_PS_ROOT_URI"] = f"ipc://{folder}/scheduler"
        endpoint_of(processes.start([*command, "--role", "scheduler"], env))
        servers = []
        for rank in range(setup.servers):
            server = processes.start([*command, "--role", "server"], env | {"DMLC_SERVER_ID": str(rank)})
            endpoint_of(server)
            servers.append(server.pid)
        command = run(servers, Path(folder, "state"))
        return processes.results([processes.start(command, env) for _ in range(setup.workers)])[0]


def of_rounds(setup: Setup, case: str, rounds: int) -> Callable[[list[int], Path], list[str]]:
    """What workers run for this number of rounds, see `job`."""

    def command(servers: list[int], state: Path) -> list[str]:
        asked = json.dumps([setup.store, case, rounds, servers])
        return [sys.executable, "-m", "benchmark.kvstore.durability", "--worker", asked]

    return command


def worker(kind: str, case: str, rounds: int, servers: list[int]) -> None:
    """One worker of such a job; rank 0 prints what it found."""
    store: Any = kvstore.create(kind)
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.01, momentum=0.9))
    shapes = CASES[case].shapes
    keys = list(range(len(shapes)))
    weights = [np.zeros(shape, np.float32) for shape in shapes]
    grads = [np.full(shape, 0.5, np.float32) for shape in shapes]
    store.broadcast(keys, weights, weights)
    given: Any = (keys, grads, weights) if len(keys) > 1 else (keys[0], grads[0], weights[0])
    for _ in range(2):
        store.pushpull(*given)
    watched = [psutil.Process(pid) for pid in servers]
    store.barrier()
    before = used(watched)
    times = [timed(store.pushpull, *given) for _ in range(rounds)]
    store.barrier()
    cpu = used(watched) - before
    if store.rank == 0:
        found = {"ms": 1e3 * statistics.median(times), "mean_ms": 1e3 * statistics.fmean(times),
                 "server_cpu_ms": 1e3 * cpu / len(times)}  # fmt: skip
        print("RESULT " + json.dumps(found), flush=True)
    store.close()


def table(setup: str, case: str, found: dict[str, list[dict[str, float]]]) -> tables.Table:
    """A case's rows, one a durability."""
    header = ["durability", "median round", "mean round", "times none", "servers' CPU a round"]
    body = []
    for kind, passes in found.items():
        ratio = statistics.median(a["mean_ms"] / b["mean_ms"] for a, b in zip(passes, found["none"], strict=True))
        shown = [statistics.median(each[name] for each in passes) for name in ("ms", "mean_ms", "server_cpu_ms")]
        median, mean, cpu = (f"{tables.number(value)} ms" for value in shown)
        body.append([kind, median, mean, f"{ratio:.2f}", cpu])
    return tables.Table(f"{CASES[case].title}, {setup}", header, body)


def main() -> None:
    """The command."""
    p = argparse.ArgumentParser(prog="scripts/bench kvstore-durability", description=ABOUT)
    p.add_argument("--setup", choices=SETUPS, default="2x2-sync")
    p.add_argument("--case", nargs="+", choices=CASES, default=list(USUAL), help=f"default: {', '.join(USUAL)}")
    p.add_argument("--passes", type=int, default=3, metavar="N", help="default: 3")
    p.add_argument(
        "--times",
        type=float,
        default=1.0,
        metavar="X",
        help="times the rounds of scripts/bench kvstore (1)",
    )
    p.add_argument("--minutes", type=float, metavar="M", help="how long one job under a journal is")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.worker:
        worker(*json.loads(options.worker))
        return
    console, content = terminal.console(), dict[str, Any]()
    for case in options.case if options.minutes else ():
        content[case] = endurance.measure(job, SETUPS[options.setup], case, KINDS["journal"], options.minutes)
        console.print(terminal.rich(endurance.table(options.setup, case, options.minutes, content[case])))
    for case in () if options.minutes else options.case:
        rounds = max(1, int(CASES[case].rounds * options.times))
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(options.passes):
            for kind, given in KINDS.items():
                found[kind].append(job(given, SETUPS[options.setup], of_rounds(SETUPS[options.setup], case, rounds)))
        content[case] = found
        console.print(terminal.rich(table(options.setup, case, found)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "cases": content}, indent=1) + "\n")


if __name__ == "__main__":
    main()
