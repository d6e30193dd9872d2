"""What a journal costs over minutes: whether rounds stay as fast, and whether its files and the
servers' memory have a bound. `scripts/bench kvstore-durability --minutes M` runs it."""

from __future__ import annotations

import contextlib
import json
import stat
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmark import tables
from benchmark.kvstore.cases import CASES, Setup
from benchmark.kvstore.worker import timed

SPANS = 5  # of a long job, each told by itself
SHORT_S = 20.0  # of each of the two jobs without durability, before and after
LOOK = 5  # rounds after which the workers look whether the time is up

Job = Callable[[list[str], Setup, Callable[[list[int], Path], list[str]]], Any]


def measure(job: Job, setup: Setup, case: str, options: list[str], minutes: float) -> dict[str, Any]:
    """A job of this many minutes with these options, between two short ones without any."""

    def run(seconds: float) -> Callable[[list[int], Path], list[str]]:
        def command(servers: list[int], state: Path) -> list[str]:
            asked = json.dumps([setup.store, case, seconds, servers, str(state)])
            return [sys.executable, "-m", "benchmark.kvstore.endurance", asked]

        return command

    before = job([], setup, run(SHORT_S))
    long = job(options, setup, run(60 * minutes))
    after = job([], setup, run(SHORT_S))
    return {"without": [before, after], "spans": long["spans"]}


def table(setup: str, case: str, minutes: float, found: dict[str, Any]) -> tables.Table:
    """The spans of the long job, one a row."""
    header = ["minutes", "rounds", "median round", "mean round", "longest", "times none", "on disk, at most",
              "a server's memory, at most"]  # fmt: skip
    without = [span for each in found["without"] for span in each["spans"]]
    mean = statistics.fmean(span["mean_ms"] for span in without)
    rows = [("none", span) for span in without]
    length = minutes / SPANS
    rows += [(f"{length * k:g} to {length * (k + 1):g}", span) for k, span in enumerate(found["spans"])]
    body = []
    for name, span in rows:
        times = [f"{tables.number(span[what])} ms" for what in ("median_ms", "mean_ms", "longest_ms")]
        sizes = [f"{span[what]:.0f} MiB" for what in ("disk_mib", "memory_mib")]
        body.append([name, f"{span['rounds']}", *times, f"{span['mean_ms'] / mean:.2f}", *sizes])
    return tables.Table(f"{CASES[case].title}, {setup}, under a journal", header, body)


def work(kind: str, case: str, seconds: float, servers: list[int], state: str) -> None:
    """One worker; rank 0 prints what it found."""
    import mxopt
    from mxopt import kvstore

    store: Any = kvstore.create(kind)
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.01, momentum=0.9))
    shapes = CASES[case].shapes
    keys, over = list(range(len(shapes))), len(shapes)
    weights = [np.zeros(shape, np.float32) for shape in shapes]
    grads = [np.full(shape, 0.5, np.float32) for shape in shapes]
    ended = np.zeros(1, np.float32)
    store.broadcast([*keys, over], [*weights, ended], [*weights, ended])
    given: Any = (keys, grads, weights) if len(keys) > 1 else (keys[0], grads[0], weights[0])
    for _ in range(2):
        store.pushpull(*given)
    watched, began = [psutil.Process(pid) for pid in servers], time.monotonic()
    number = SPANS if seconds > SHORT_S else 1
    times: list[list[float]] = [[] for _ in range(number)]
    disk, memory = [0] * number, [0] * number
    while not ended[0]:
        span = min(number - 1, int(number * (time.monotonic() - began) / seconds))
        for _ in range(LOOK):
            store.step += 1  # a cut is between two of these, though one key isn't pushed in each
            times[span].append(timed(store.pushpull, *given))
        if store.rank == 0:
            disk[span] = max(disk[span], bytes_in(Path(state)))
            memory[span] = max([memory[span], *(server.memory_info().rss for server in watched)])
        is_over = store.rank == 0 and time.monotonic() - began > seconds
        store.pushpull(over, np.full(1, float(is_over), np.float32), ended)
    if store.rank == 0:
        spans = [
            {"rounds": len(each), "median_ms": 1e3 * statistics.median(each), "mean_ms": 1e3 * statistics.fmean(each),
             "longest_ms": 1e3 * max(each), "disk_mib": disk[k] / 2**20, "memory_mib": memory[k] / 2**20}
            for k, each in enumerate(times) if each
        ]  # fmt: skip
        print("RESULT " + json.dumps({"spans": spans}), flush=True)
    store.close()


def bytes_in(folder: Path) -> int:
    """The bytes of all files in a folder, those with several names once."""
    found: dict[int, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                found[about.st_ino] = about.st_size
    return sum(found.values())


if __name__ == "__main__":
    work(*json.loads(sys.argv[1]))
