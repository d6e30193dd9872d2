"""Measures rounds of the distributed stores; `scripts/bench kvstore --help` says it all."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark import environments, machine, tables, terminal
from benchmark.kvstore.cases import CASES, SETUPS, Setup

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
DEADLINE = 600  # seconds for a set-up

ABOUT = """A round is a pushpull of all keys with an sgd optimizer on the servers, or a push and then a pull as MXNet's
scripts have it, by every worker at once. The floors send the same bytes through a plain pyzmq echo for each server and
back: over TCP, and over the sockets that the store uses. All are measured in turn within one run: only their ratios
mean anything. Processes of one machine talk through Unix sockets, where the store's large arrays lie in memory that
both have mapped; with --tcp they don't."""


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
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def start(self, command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        """Starts a process whose output is read."""
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def results(self, ranks: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
        """What the workers print, when all have ended. Raises SystemExit where one fails."""
        lines = [line for rank in ranks for line in (rank.communicate(timeout=DEADLINE)[0] or "").splitlines()]
        if any(rank.returncode for rank in ranks):
            raise SystemExit("a worker failed")
        return [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]


def endpoint_of(process: subprocess.Popen[str]) -> str:
    """Where a process says that it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if "listening on " not in line:
        raise SystemExit(f"a process didn't start: {line}")
    return line.rpartition(" ")[2].strip()


def measure(setup: Setup, cases: list[str], share: float, tcp: bool) -> list[dict[str, Any]]:
    """The rounds of one set-up."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")])
    env = dict(os.environ, PYTHONPATH=path, DMLC_NUM_WORKER=str(setup.workers), DMLC_NUM_SERVER=str(setup.servers))
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        echo = [sys.executable, "-m", "benchmark.kvstore.floor"]
        unix = [f"{folder}/echo-{k}" for k in range(setup.servers)]
        floors = [endpoint_of(processes.start([*echo, path], env)) for path in unix]
        command = [sys.executable, "-m", "mxopt_server", "--log-level", "ERROR"]
        scheduler = processes.start([*command, "--role", "scheduler", "--port", "0"], env)
        env["DMLC_PS_ROOT_PORT"] = endpoint_of(scheduler).rpartition(":")[2]
        command += ["--role", "server", *(["--advertise", "127.0.0.1"] if tcp else [])]
        servers = [processes.start(command, env) for _ in range(setup.servers)]
        for server in servers:
            endpoint_of(server)
        watch = machine.Watch(process.pid for process in processes.running)
        asked = {"store": setup.store, "cases": cases, "share": share, "floors": floors,
                 "same": floors if tcp else [f"ipc://{path}" for path in unix],
                 "servers": [server.pid for server in servers]}  # fmt: skip
        run = [sys.executable, "-m", "benchmark.kvstore.worker", json.dumps(asked)]
        rows = processes.results([processes.start(run, env) for _ in range(setup.workers)])
        remarks = [text for text in watch.remarks(0, 1.0) if text.startswith("stolen")]
    return [row | {"remarks": remarks} for row in rows]


def measure_mxnet(python: str, setup: Setup, cases: list[str]) -> dict[str, float]:
    """The same rounds by ps-lite: milliseconds by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = dict(os.environ, DMLC_NUM_WORKER=str(setup.workers), DMLC_NUM_SERVER=str(setup.servers),
               DMLC_PS_ROOT_URI="127.0.0.1", DMLC_PS_ROOT_PORT=str(port), BENCH_STORE=setup.store,
               PYTHONPATH="", PYTHONWARNINGS="ignore")  # fmt: skip
    argument = json.dumps({name: [CASES[name].shapes, CASES[name].mxnet_rounds, CASES[name].draw] for name in cases})
    command = [python, str(HERE / "ps_lite.py"), argument]
    with Processes() as processes:
        for role in ["scheduler", *["server"] * setup.servers]:
            processes.start(command, env | {"DMLC_ROLE": role})
        ranks = [processes.start(command, env | {"DMLC_ROLE": "worker"}) for _ in range(setup.workers)]
        return {row["case"]: row["mxnet_ms"] for row in processes.results(ranks)}


def table(setup: str, rows: list[dict[str, Any]]) -> tables.Table:
    """A set-up's rows."""
    header = ["", "by", "floor, TCP", "floor, same", "mxopt", "mxopt / TCP", "mxopt / same", "target", "MXNet",
              "MXNet / mxopt", "servers' CPU a round", "server's memory", "remarks"]  # fmt: skip
    body, chosen = [], SETUPS[setup]
    for row in rows:
        mxnet = row.get("mxnet_ms")
        other = ["–", "–"] if mxnet is None else [f"{tables.number(mxnet)} ms", f"{mxnet / row['ms']:.1f}"]
        case = CASES[row["case"]]
        body.append([
            case.title, row["way"], f"{tables.number(row['floor_ms'])} ms", f"{tables.number(row['same_ms'])} ms",
            f"{tables.number(row['ms'])} ms", f"{row['ratio']:.2f}", f"{row['same_ratio']:.2f}",
            f"{case.target(chosen.workers):g}", *other, f"{tables.number(row['server_cpu_ms'])} ms",
            f"{row['server_peak_mib']:.0f} MiB", "; ".join(row["remarks"]),
        ])  # fmt: skip
    workers = f"{chosen.workers} worker{'s' * (chosen.workers > 1)}"
    return tables.Table(f"{workers}, {chosen.servers} server{'s' * (chosen.servers > 1)}, {chosen.store}", header, body)


def main() -> None:
    """The command."""
    p = argparse.ArgumentParser(prog="scripts/bench kvstore", description=ABOUT)
    p.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    p.add_argument("--setup", nargs="+", choices=SETUPS, default=list(SETUPS), help="default: all")
    p.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    p.add_argument("--tcp", action="store_true", help="reach the servers by TCP, as from another machine")
    p.add_argument("--python", metavar="mxnet=PATH", help="the Python that has MXNet 1.9.1, to measure ps-lite too")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    options = p.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = dict([options.python.split("=", 1)]) if options.python else {}
    mxnet = environments.pythons(given).get("mxnet")
    console, found = terminal.console(), {}
    for name in options.setup:
        console.print(f"[dim]{name} …", highlight=False)
        rows = measure(SETUPS[name], options.case, 0.2 if options.quick else 1.0, options.tcp)
        others = measure_mxnet(mxnet, SETUPS[name], options.case) if mxnet else {}
        found[name] = [row | {"mxnet_ms": others.get(row["case"])} for row in rows]
        console.print(terminal.rich(table(name, found[name])))
    if options.json:
        content = {"machine": machine.describe(), "tcp": options.tcp, "setups": found}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text("\n".join(tables.as_markdown(table(*each)) for each in found.items()))


if __name__ == "__main__":
    main()
