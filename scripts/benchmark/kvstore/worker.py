"""One worker of a job: measures floor and store in turn; rank 0 prints what it found."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import mxopt
from benchmark.kvstore.cases import BLOCKS, CASES, Case
from benchmark.kvstore.floor import Echo
from mxopt import kvstore, sparse
from mxopt.sparse import RowSparse


def main() -> None:
    """What it is asked for comes as JSON."""
    asked = json.loads(sys.argv[1])
    store = kvstore.create(asked["store"])
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.01))
    tcp, same = Echo(asked["floors"]), Echo(asked["same"])
    servers, first = [psutil.Process(pid) for pid in asked["servers"]], 0
    for name in asked["cases"]:
        rows = measure(store, CASES[name], first, tcp, same, servers, asked["share"])
        first += len(CASES[name].shapes)
        for way, found in rows.items() if store.rank == 0 else ():
            print("RESULT " + json.dumps({"case": name, "way": way, **found}), flush=True)
    store.close()


def measure(
    store: Any, case: Case, first: int, tcp: Echo, same: Echo, servers: list[psutil.Process], share: float
) -> dict[str, dict[str, float]]:
    """For each way of a round: the medians of floors and store, and of the blocks' ratios; what it
    costs the servers. `tcp` is the floor over TCP, `same` that over the transport of the store."""
    ways, given, nbytes = ways_of_rows(store, case, first) if case.draw else ways_of_values(store, case, first)
    rounds = max(1, int(case.rounds * share) // BLOCKS)
    for process in servers if store.rank == 0 else ():
        forget_peak(process)

    floors: list[list[float]] = []
    sames: list[list[float]] = []
    mine: dict[str, list[list[float]]] = {way: [] for way in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for _ in range(BLOCKS):
        store.barrier()
        floors.append([timed(tcp.round, nbytes) for _ in range(rounds)])
        store.barrier()
        sames.append([timed(same.round, nbytes) for _ in range(rounds)])
        for way, call in ways.items():
            store.barrier()
            before = used(servers)
            mine[way].append([timed(call, *given) for _ in range(rounds)])
            store.barrier()
            cpu[way] += used(servers) - before
    median = statistics.median

    def ratio(times: list[list[float]], floor: list[list[float]]) -> float:
        return median(median(m) / median(f) for m, f in zip(times, floor, strict=True))

    return {
        way: {
            "floor_ms": 1e3 * median(chain(*floors)),
            "same_ms": 1e3 * median(chain(*sames)),
            "ms": 1e3 * median(chain(*mine[way])),
            "ratio": ratio(mine[way], floors),
            "same_ratio": ratio(mine[way], sames),
            "server_cpu_ms": 1e3 * cpu[way] / (BLOCKS * rounds),
            "server_peak_mib": max(map(peak, servers)),
        }
        for way in ways
    }


Ways = tuple[dict[str, Callable[..., None]], tuple[Any, ...], int]  # of a round; what they are given; bytes there


def ways_of_values(store: Any, case: Case, first: int) -> Ways:
    """Rounds of whole values."""
    keys = list(range(first, first + len(case.shapes)))
    weights = [np.zeros(shape, np.float32) for shape in case.shapes]
    grads = [np.full(shape, 0.5, np.float32) for shape in case.shapes]
    store.broadcast(keys, weights, weights)

    def push_then_pull(keys: Any, grads: Any, weights: Any) -> None:
        store.push(keys, grads)
        store.pull(keys, weights)

    given: Any = (keys[0], grads[0], weights[0]) if len(keys) == 1 else (keys, grads, weights)
    return {"pushpull": store.pushpull, "push, pull": push_then_pull}, given, sum(grad.nbytes for grad in grads)


def ways_of_rows(store: Any, case: Case, first: int) -> Ways:
    """Rounds of rows of a table, all of which are there: as MXNet's scripts push them, and pull
    them for the next batch."""
    (shape,) = case.shapes
    every = np.arange(shape[0])
    store.init(first, sparse.table(shape))
    for rows in np.array_split(every, 8):
        store.push(first, RowSparse(np.ones((len(rows), *shape[1:]), np.float32), rows, shape))
    store.barrier()
    out, rng = sparse.zeros("row_sparse", shape), np.random.default_rng(store.rank)
    ids = np.sort(rng.choice(shape[0], case.draw, replace=False))
    grad = RowSparse(np.full((case.draw, *shape[1:]), 0.5, np.float32), ids, shape)

    def push_then_pull() -> None:
        store.push(first, grad)
        store.row_sparse_pull(first, out, row_ids=ids)

    return {"push, pull": push_then_pull}, (), grad.data.nbytes


def timed(action: Callable[..., Any], *arguments: Any) -> float:
    """The seconds that `action` takes."""
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def used(servers: list[psutil.Process]) -> float:
    """Seconds of CPU time so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in servers))


def forget_peak(process: psutil.Process) -> None:
    """Makes the peak of a process's memory start anew, where the system can."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak(process: psutil.Process) -> float:
    """The most memory a process has had, in MiB."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return float(process.memory_info().rss / 2**20)
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
