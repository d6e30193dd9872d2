"""`mxopt-server`: runs the scheduler or a server of a job, makes keys, and shows a job's status."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mxopt import set_num_threads, settings
from mxopt.errors import ArgumentError, MXOptError
from mxopt.kvstore import unix
from mxopt.typing import Plain
from mxopt_server import logs, loop, metrics
from mxopt_server.arguments import LEVELS, Parser, any_port, any_text, count, port_of_rank, rank
from mxopt_server.durability import Durability, add_durability, durability
from mxopt_server.signals import Stopped

if TYPE_CHECKING:
    from mxopt_server.scheduler import Scheduler
    from mxopt_server.server import Server

DESCRIPTION = """\
Runs one process of a distributed job: its scheduler, or a server that holds values and updates them.
What isn't given comes from the environment: DMLC_ROLE, DMLC_PS_ROOT_URI, DMLC_PS_ROOT_PORT, DMLC_NUM_WORKER,
DMLC_NUM_SERVER and so on, as MXNet has them.
"""


def parser() -> Parser:
    """The command line."""
    made = Parser(
        "mxopt-server", ("keygen", "status"), description=DESCRIPTION,
        epilog="also: mxopt-server keygen --help, mxopt-server status --help",
    )  # fmt: skip
    made.add_argument("--role", choices=["scheduler", "server"], help="what to run (DMLC_ROLE)")
    made.add_scheduler()
    made.add_argument("--workers", type=count, metavar="N", help="workers of the job (DMLC_NUM_WORKER)")
    made.add_argument("--servers", type=count, metavar="N", help="servers of the job (DMLC_NUM_SERVER)")
    made.add_argument("--rank", type=rank, metavar="N", help="the rank this server wishes for (DMLC_SERVER_ID)")
    made.add_argument("--job", help="the job's name, which all its processes must share (MXOPT_JOB_ID)")
    made.add_argument("--bind", metavar="HOST", help="the address to listen on (127.0.0.1)")
    made.add_argument(
        "--port",
        type=any_port,
        metavar="N",
        help="the port to listen on; 0, and a server's default: a free one. With "
        "a scheduler at ipc://PATH processes listen on TCP only where --bind, --port or --advertise asks for it",
    )
    made.add_argument(
        "--advertise", metavar="HOST[:PORT]", help="where others reach this server (DMLC_NODE_HOST), and only there"
    )
    made.add_keys()
    made.add_argument("--insecure", action="store_true", help="listen beyond this machine without keys")
    made.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                      help="a module to import, which registers optimizers of one's own; the current folder is "
                      "searched too")  # fmt: skip
    made.add_argument(
        "--snapshot",
        metavar="FILE",
        help="where a server keeps snapshots, and carries on from at its start; RANK in it is the server's rank",
    )
    add_durability(made, "snapshot with --state-dir, else none", "nowhere")
    made.add_argument(
        "--metrics-port", type=port_of_rank, metavar="N", help="serve Prometheus metrics on this port; N+RANK: as many "
        "more as the server's rank",
    )  # fmt: skip
    made.add_metrics_host()
    made.add_argument("--threads", type=count, default=1, metavar="N", help="threads of an update (%(default)s)")
    made.add_argument(
        "--log-level", type=str.upper, choices=LEVELS, default="INFO", metavar="LEVEL",
        help="how much to log: DEBUG, INFO, WARNING, ERROR or CRITICAL (%(default)s)",
    )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `mxopt-server`; returns its exit code."""
    any_text(sys.stdout)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["keygen"]:
            from mxopt_server.keygen import main as keygen

            return keygen(given[1:])
        if given[:1] == ["status"]:
            from mxopt_server.status import main as status

            return status(given[1:])
        return _run(parser().parse_args(given))
    except ArgumentError as error:
        print(f"mxopt-server: {error}", file=sys.stderr)
        return 2
    except (MXOptError, OSError) as error:  # of the system: a disk that is full, a folder that may not be written
        print(f"mxopt-server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Stopped as stopped:  # before there was anything to end in order
        print(f"mxopt-server: stopped by {stopped}", file=sys.stderr)
        return 1


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that these arguments are. Raises ArgumentError where `mxopt-server` wouldn't take
    them on any machine."""
    options = parser().parse_args(arguments)
    _kept(options)
    return options


def _run(options: argparse.Namespace) -> int:
    from mxopt_server.attached import Attached
    from mxopt_server.doors import Wanted

    job = _job(options)
    if job.role == "worker":
        raise ArgumentError("say --role scheduler or --role server")
    if job.role == "server":  # a scheduler compiles nothing
        from mxopt_server import preload  # noqa: F401
    kept = _kept(options)
    if options.snapshot and not Path(options.snapshot).absolute().parent.is_dir():
        raise ArgumentError(f"--snapshot {options.snapshot}: there is no such folder")
    if options.metrics_port is not None:
        metrics.check(options.metrics_host)
    os.environ[settings.BECOME_ROLE] = "0"  # for whatever is started from here on
    logs.start(sys.stderr, job.role, options.log_level)
    import_all(options.imports)
    set_num_threads(options.threads)
    asked = not (options.bind is options.port is options.advertise is None)
    usual = job.port if job.role == "scheduler" and not unix.is_unix(job.host) else 0
    wanted = Wanted(
        asked or not unix.is_unix(job.host), options.advertise is not None, options.bind or "127.0.0.1",
        usual if options.port is None else options.port, options.insecure,
    )  # fmt: skip
    if job.role == "scheduler":

        def watched(scheduler: Scheduler) -> None:
            _serve_metrics(options, scheduler.report, 0)

        return loop.run_scheduler(job, wanted, _announce, kept, watched)
    snapshot = Path(options.snapshot) if options.snapshot else None

    def attach(server: Server) -> Attached:
        _serve_metrics(options, server.report, server.rank)
        return Attached(server, snapshot, options.snapshot_every)

    return loop.run_server(job, wanted, _announce, kept, attach)


def _serve_metrics(options: argparse.Namespace, report: Callable[[], Plain], rank: int) -> None:
    if options.metrics_port is not None:
        metrics.serve(report, options.metrics_host, options.metrics_port(rank))


def _kept(options: argparse.Namespace) -> Durability:
    """What the process keeps on disk."""
    kept = durability(options, options.durability or ("snapshot" if options.state_dir else "none"), options.state_dir)
    if options.snapshot and kept.kind != "none":
        raise ArgumentError(f"--snapshot FILE is for a server without --durability {kept.kind} and --state-dir")
    return kept


def import_all(names: Sequence[str]) -> None:
    """Imports the modules that `--import` names; only for them, and last, from the current
    folder."""
    if names:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and lacks another
            where = f"neither on Python's path nor in {os.getcwd()}"
            raise ArgumentError(f"--import {name}: there is no such module, {where}") from None


def _announce(endpoint: str) -> None:
    """Prints where the process listens."""
    print(f"listening on {endpoint}", flush=True)


def _job(options: argparse.Namespace) -> settings.Job:
    """The job of the environment, overridden by the command line."""
    changes: dict[str, object] = {}
    if options.role:
        os.environ["DMLC_ROLE"] = options.role
    if options.scheduler:
        changes["host"], changes["port"] = options.scheduler
    for name, field in (("workers", "workers"), ("servers", "servers"), ("rank", "rank"), ("job", "job"),
                        ("advertise", "advertised"), ("keys", "keys")):  # fmt: skip
        if getattr(options, name) is not None:
            changes[field] = getattr(options, name)
    settings.check(os.environ)
    return dataclasses.replace(settings.job(), **changes)  # type: ignore[arg-type]
