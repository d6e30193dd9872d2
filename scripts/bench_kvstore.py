"""Measures rounds of the distributed stores beside a plain pyzmq echo of the same bytes, and beside MXNet's ps-lite.

    python scripts/bench_kvstore.py [--quick] [--json FILE] [--mxnet PYTHON] [--setup 1x1-async ...] [--case small ...]

A round is one `pushpull` of all keys with an sgd optimizer on the servers, by every worker at once. The floor sends
the same bytes in
1 MiB pieces (small keys in as few messages) through one echoing ROUTER for each server, and back. Floor and store
are measured
in turn within one run, medians of the rounds; only their ratio means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

SETUPS = {"1x1-async": (1, 1, "dist_async"), "2x1-sync": (2, 1, "dist_sync"), "2x2-sync": (2, 2, "dist_sync")}
CASES = ("latency", "small", "resnet50", "large")
TARGETS = {"latency": 1.5, "small": 10.0, "resnet50": 1.3, "large": 1.3}
PIECE = 1 << 20
ROOT = Path(__file__).resolve().parent.parent


def resnet50() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's 161 parameters."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for shape in ((planes, width, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1)):
                shapes += [shape, shape[:1], shape[:1]]
            if block == 0:
                shapes += [(4 * planes, width, 1, 1), (4 * planes,), (4 * planes,)]
            width = 4 * planes
    return [*shapes, (1000, 2048), (1000,)]


def shapes_of(case: str) -> list[tuple[int, ...]]:
    """The shapes of a case's keys."""
    return {"latency": [(1000,)], "small": [(256,)] * 1000, "resnet50": resnet50(), "large": [(25_000_000,)]}[case]


def rounds_of(case: str, quick: bool) -> int:
    """How many rounds of a case are measured."""
    return {"latency": 2000, "small": 100, "resnet50": 40, "large": 30}[case] // (5 if quick else 1)


# Workers: started by this script, each measures floor and store in turn.


def worker() -> None:
    """Measures, as one worker of a job; rank 0 prints what it found."""
    cases, quick, floors = sys.argv[2].split(","), sys.argv[3] == "1", sys.argv[4].split(",")
    import mxopt
    from mxopt import kvstore

    store = kvstore.create(os.environ["BENCH_STORE"])
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.01))
    echo = Echo(floors)
    base = 0
    for case in cases:
        shapes = shapes_of(case)
        keys = list(range(base, base + len(shapes)))
        base += len(shapes)
        weights = [np.zeros(s, np.float32) for s in shapes]
        grads = [np.full(s, 0.5, np.float32) for s in shapes]
        store.broadcast(keys, weights, weights)
        nbytes = sum(g.nbytes for g in grads)
        rounds = rounds_of(case, quick)
        block = max(1, rounds // 10)
        mine: list[float] = []
        floor: list[float] = []
        for _ in range(10):
            store.barrier()
            floor += [timed(echo.round, nbytes) for _ in range(block)]
            store.barrier()
            given = (keys[0], grads[0], weights[0]) if len(keys) == 1 else (keys, grads, weights)
            mine += [timed(store.pushpull, *given) for _ in range(block)]
        if store.rank == 0:
            found = {"case": case, "ms": 1e3 * statistics.median(mine), "floor_ms": 1e3 * statistics.median(floor)}
            print("RESULT " + json.dumps(found), flush=True)
    store.close()


def timed(action: Any, *arguments: Any) -> float:
    """The seconds that `action` takes."""
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


class Echo:
    """The floor's client: sends bytes in pieces and takes them back, as fast as pyzmq alone can."""

    def __init__(self, endpoints: list[str]) -> None:
        import zmq

        self.context = zmq.Context()
        self.sockets = []
        for endpoint in endpoints:
            socket = self.context.socket(zmq.DEALER)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
            self.sockets.append(socket)
        self.buffer = np.zeros(100_000_000, np.uint8)

    def round(self, nbytes: int) -> None:
        pieces = [min(PIECE, nbytes - at) for at in range(0, nbytes, PIECE)]
        counts = [0] * len(self.sockets)
        at = 0
        for k, size in enumerate(pieces):
            self.sockets[k % len(self.sockets)].send(self.buffer[at : at + size], copy=size < 1 << 15)
            counts[k % len(self.sockets)] += 1
            at += size
        for socket, count in zip(self.sockets, counts, strict=True):
            for _ in range(count):
                socket.recv(copy=False)


def echo_server() -> None:
    """The floor's server."""
    import zmq

    socket = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    print(f"listening on tcp://127.0.0.1:{port}", flush=True)
    while True:
        frames = socket.recv_multipart(copy=False)
        socket.send_multipart(frames, copy=False)


MXNET_WORKER = """
import os, sys, json, time, statistics
import numpy as np
np.bool = bool
import mxnet as mx
shapes_by_case, rounds_by_case = json.loads(sys.argv[1])
store = mx.kv.create(os.environ["BENCH_STORE"])
store.set_optimizer(mx.optimizer.create("sgd", learning_rate=0.01))
base = 0
for case, shapes in shapes_by_case.items():
    keys = list(range(base, base + len(shapes)))
    base += len(shapes)
    weights = [mx.nd.zeros(tuple(s)) for s in shapes]
    grads = [mx.nd.full(tuple(s), 0.5) for s in shapes]
    store.init(keys, weights)
    store.pull(keys, out=weights)
    mx.nd.waitall()
    times = []
    for _ in range(rounds_by_case[case]):
        start = time.perf_counter()
        store.push(keys, grads)
        store.pull(keys, out=weights)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    if store.rank == 0:
        print("RESULT " + json.dumps({"case": case, "mxnet_ms": 1e3 * statistics.median(times)}), flush=True)
"""


# The driver.


class Processes:
    """Processes that end with the block."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait()

    def start(self, command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """Where a process says that it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if "listening on " not in line:
        raise SystemExit(f"a process didn't start: {line}")
    return line.rpartition(" ")[2].strip()


def measure(setup: str, cases: list[str], quick: bool) -> list[dict[str, Any]]:
    """The rounds of one set-up."""
    workers, servers, name = SETUPS[setup]
    path = os.pathsep.join([str(ROOT), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")])
    env = dict(
        os.environ, PYTHONPATH=path, DMLC_NUM_WORKER=str(workers), DMLC_NUM_SERVER=str(servers), BENCH_STORE=name
    )
    with Processes() as processes:
        python = sys.executable
        floors = [endpoint_of(processes.start([python, __file__, "--echo"], env)) for _ in range(servers)]
        command = [python, "-m", "mxopt_server", "--log-level", "WARNING"]
        scheduler = processes.start([*command, "--role", "scheduler", "--port", "0"], env)
        env["DMLC_PS_ROOT_PORT"] = endpoint_of(scheduler).rpartition(":")[2]
        started = [processes.start([*command, "--role", "server"], env) for _ in range(servers)]
        for process in started:
            endpoint_of(process)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run = [python, __file__, "--worker", ",".join(cases), str(int(quick)), ",".join(floors)]
        ranks = [processes.start(run, env) for _ in range(workers)]
        lines = [line for rank in ranks for line in (rank.communicate()[0] or "").splitlines()]
        usage = [os.wait4(process.pid, 0)[2] for process in started]
        del before
    rows = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    for row in rows:
        row |= {"setup": setup, "ratio": row["ms"] / row["floor_ms"]}
    if rows:
        rows[-1]["server_cpu_s"] = sum(u.ru_utime + u.ru_stime for u in usage)
        rows[-1]["server_peak_mib"] = max(u.ru_maxrss for u in usage) / 1024
    return rows


def measure_mxnet(python: str, setup: str, cases: list[str]) -> dict[str, float]:
    """The same rounds by ps-lite."""
    import socket

    workers, servers, name = SETUPS[setup]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = dict(os.environ, DMLC_NUM_WORKER=str(workers), DMLC_NUM_SERVER=str(servers), BENCH_STORE=name,
               DMLC_PS_ROOT_URI="127.0.0.1", DMLC_PS_ROOT_PORT=str(port), PYTHONWARNINGS="ignore")  # fmt: skip
    rounds = {case: {"latency": 200, "small": 5, "resnet50": 8, "large": 6}[case] for case in cases}
    argument = json.dumps([{case: shapes_of(case) for case in cases}, rounds])
    with Processes() as processes:
        for role in ["scheduler", *["server"] * servers]:
            processes.start([python, "-c", MXNET_WORKER, argument], dict(env, DMLC_ROLE=role))
        command = [python, "-c", MXNET_WORKER, argument]
        ranks = [processes.start(command, dict(env, DMLC_ROLE="worker")) for _ in range(workers)]
        lines = [line for rank in ranks for line in (rank.communicate(timeout=300)[0] or "").splitlines()]
    found = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {row["case"]: row["mxnet_ms"] for row in found}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'set-up':<10} {'case':<9} {'floor ms':>9} {'mxopt ms':>9} {'ratio':>6} {'target':>6} {'MXNet ms':>9}"
             f" {'faster':>7}"]  # fmt: skip
    for row in rows:
        mxnet = row.get("mxnet_ms")
        other = "" if mxnet is None else f"{mxnet:9.2f} {mxnet / row['ms']:6.1f}x"
        lines.append(
            f"{row['setup']:<10} {row['case']:<9} {row['floor_ms']:9.3f} {row['ms']:9.3f} {row['ratio']:6.2f}"
            f" {TARGETS[row['case']]:6.1f} {other}"
        )
        if "server_cpu_s" in row:
            lines.append(
                f"{'':<10} servers: {row['server_cpu_s']:.1f} s CPU, at most {row['server_peak_mib']:.0f} MiB each"
            )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["--worker"]:
        worker()
        return
    if sys.argv[1:2] == ["--echo"]:
        threading.current_thread().name = "echo"
        echo_server()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--mxnet", metavar="PYTHON", help="a Python with MXNet 1.9.1, to measure ps-lite too")
    parser.add_argument("--setup", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for setup in options.setup:
        found = measure(setup, options.case, options.quick)
        if options.mxnet:
            other = measure_mxnet(options.mxnet, setup, options.case)
            for row in found:
                row["mxnet_ms"] = other.get(row["case"])
        rows += found
    print(table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
