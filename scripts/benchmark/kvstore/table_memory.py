"""What the memory of servers has beside the rows of a table and their states.

    scripts/bench kvstore-memory

Two workers push and pull rows of a table of 10**9 x 64 on two servers, with numbers that follow a
power law, until the given number of rows is there. A server needs what its rows and their states
take; that is compared with its resident memory at the end, with what of that is no page of a file,
as of a program or a library, and with the most it has had. What it has grown by since the first
round, when all code was compiled, is compared with what the rows take that have come since: the
rest is what a server takes without any row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import mxopt
from benchmark.kvstore.__main__ import Processes, endpoint_of
from benchmark.kvstore.worker import forget_peak, peak
from mxopt import kvstore, sparse
from mxopt.sparse.rows import distinct, union

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (10**9, 64)
ARRAYS = {"sgd": 1, "adagrad": 2, "adam": 3}  # of each row: its values, and its states
MIB = 1 << 20


def draws(workers: int, count: int) -> Iterator[list[np.ndarray]]:
    """Round after round the rows of each worker: row k as often as 1 / k."""
    rng = np.random.default_rng(1)
    while True:
        yield [distinct((SHAPE[0] ** rng.random(count)).astype(np.int64) - 1) for _ in range(workers)]


def work(asked: dict[str, Any]) -> None:
    """One worker; rank 0 prints what it found."""
    store, out = kvstore.create("dist_sync"), sparse.zeros("row_sparse", SHAPE)
    store.set_optimizer(mxopt.create(asked["optimizer"], learning_rate=0.01))
    store.init("table", sparse.table(SHAPE, init="uniform", scale=0.01))
    servers = [psutil.Process(pid) for pid in asked["servers"]]
    touched, first, before = np.empty(0, np.int64), np.empty(0, np.int64), [0, 0]
    for ids in draws(store.num_workers, asked["draw"]):
        mine = ids[store.rank]
        grad = np.full((len(mine), SHAPE[1]), 0.5, np.float32)
        store.push("table", sparse.row_sparse_array((grad, mine), SHAPE))
        store.row_sparse_pull("table", out, row_ids=mine)
        store.barrier()
        touched = reduce(union, ids, touched)
        if not len(first):  # code is compiled, and buffers are there
            first, before = touched, [server.memory_info().rss for server in servers]
            for server in servers if store.rank == 0 else ():
                forget_peak(server)
        if len(touched) >= asked["rows"]:
            break
    bytes_of_row = ARRAYS[asked["optimizer"]] * SHAPE[1] * 4
    found = []
    for rank, server in enumerate(servers):
        need, need_at_first = (int(np.sum(ids % len(servers) == rank)) * bytes_of_row for ids in (touched, first))
        now = {"resident": server.memory_info().rss, "own": own(server), "peak": int(peak(server) * MIB)}
        sizes = {**now, "at_first": before[rank], "need_at_first": need_at_first}
        found.append({"rows": need // bytes_of_row, "need": need, **sizes})
    if store.rank == 0:
        print("RESULT " + json.dumps({"rows": len(touched), "servers": found}), flush=True)
    store.close()


def own(process: psutil.Process) -> int:
    """The bytes of a process's memory that are no pages of files, as programs and libraries are,
    which all processes of a machine share."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(rows: int, optimizer: str, draw: int = 50_000) -> dict[str, Any]:
    """What two servers have in the end."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "server"), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    env = dict(os.environ, PYTHONPATH=path, DMLC_NUM_WORKER="2", DMLC_NUM_SERVER="2")
    with Processes() as processes:
        command = [sys.executable, "-m", "mxopt_server", "--log-level", "ERROR"]
        scheduler = processes.start([*command, "--role", "scheduler", "--port", "0"], env)
        env["DMLC_PS_ROOT_PORT"] = endpoint_of(scheduler).rpartition(":")[2]
        servers = [processes.start([*command, "--role", "server"], env) for _ in range(2)]
        for server in servers:
            endpoint_of(server)
        pids = [server.pid for server in servers]
        asked = json.dumps({"rows": rows, "optimizer": optimizer, "draw": draw, "servers": pids})
        run = [sys.executable, "-m", "benchmark.kvstore.table_memory", "--worker", asked]
        (found,) = processes.results([processes.start(run, env) for _ in range(2)])
    return found


def main() -> None:
    """The command."""
    p = argparse.ArgumentParser(prog="scripts/bench kvstore-memory", description=__doc__.partition("\n")[0])
    p.add_argument("--rows", type=int, default=2_000_000, help="that are touched (%(default)s)")
    p.add_argument("--optimizer", choices=ARRAYS, default="adam", help="default: %(default)s")
    p.add_argument("--worker", help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    found = measure(options.rows, options.optimizer)
    print(f"{options.optimizer}, a table of {SHAPE[0]:,} x {SHAPE[1]}, {found['rows']:,} rows touched")
    for rank, server in enumerate(found["servers"]):
        need, resident, alone, most = (server[what] for what in ("need", "resident", "own", "peak"))
        grown, came = resident - server["at_first"], need - server["need_at_first"]
        print(
            f"server {rank}: {server['rows']:,} rows need {need / MIB:.0f} MiB; resident"
            f" {resident / MIB:.0f} MiB ({resident / need:.2f}), without files {alone / MIB:.0f} MiB"
            f" ({alone / need:.2f}), at most {most / MIB:.0f} MiB ({most / need:.2f}); grown by"
            f" {grown / MIB:.0f} MiB for rows of {came / MIB:.0f} MiB ({grown / came:.2f})"
        )


if __name__ == "__main__":
    main()
