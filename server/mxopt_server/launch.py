"""`mxopt-launch -n W -s S COMMAND`: starts a whole job, shows its output, and ends it as one."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mxopt.errors import ArgumentError, MXOptError
from mxopt_server import key_copies, status
from mxopt_server.arguments import Parser, as_given, count, count_or_none, folder, for_a_reader, port
from mxopt_server.children import LaunchError
from mxopt_server.durability import Restarts, add_durability
from mxopt_server.job_state import JobState
from mxopt_server.launchers import Process
from mxopt_server.plan import Plan
from mxopt_server.running import Launch
from mxopt_server.signals import Interrupted, signals


def parser() -> Parser:
    """The command line; names as in MXNet's tools/launch.py."""
    made = Parser("mxopt-launch", description=__doc__)
    made.add_argument("-n", "--num-workers", type=count, required=True, metavar="W", help="how many workers")
    made.add_argument("-s", "--num-servers", type=count, metavar="S", help="how many servers (as many as workers)")
    made.add_argument("-H", "--hostfile", help="ssh, mpi: a file with one host a line")
    made.add_argument(
        "--launcher", choices=["local", "ssh", "mpi", "slurm", "ray"], help="how (ssh with --hostfile, else local)"
    )
    made.add_argument(
        "--host", metavar="HOST", help="ssh, mpi, slurm: the address of this machine as the others reach it"
    )
    made.add_argument(
        "--sync-dst-dir", metavar="DIR", help="ssh, ray: the folder to run in on the other machines (this one)"
    )
    made.add_argument("--username", default="", help="ssh: the user's name there")
    for name, whom in (("--env", "every process"), ("--env-server", "servers"), ("--env-worker", "workers")):
        made.add_argument(
            name, action="append", default=[], metavar="NAME[=VALUE]",
            help=f"a variable for {whom}; without a value this process's is handed on (NAME:VALUE is the same)",
        )  # fmt: skip
    made.add_argument(
        "--python", default=sys.executable, metavar="FILE", help="the Python of scheduler and servers (this command's)"
    )
    made.add_argument("--run-dir", metavar="DIR", help="where the logs go (a new folder under ./runs)")
    made.add_argument(
        "--metrics-port", type=port, metavar="N", help="serve Prometheus metrics: the scheduler's on this port, those "
        "of server 0 on the next, and so on",
    )  # fmt: skip
    made.add_metrics_host()
    made.add_argument(
        "--server-args", default="", metavar="ARGS", help="more arguments for every mxopt-server, joined by `=`: "
        "--server-args='--threads 2'",
    )  # fmt: skip
    made.add_argument(
        "--keys",
        metavar="FILE",
        help="the job's keys, needed beyond this machine; ssh and ray bring them along, for mpi and slurm "
        "the file must be there too",
    )
    made.add_argument("--insecure", action="store_true", help="listen beyond this machine without keys")
    add_durability(made, "snapshot", "a folder `state` within that of the logs")
    made.add_argument(
        "--restarts", type=count_or_none, metavar="N",
        help="how often each server that was killed is started again, where the job goes on with it (3; with"
        " --durability none 0)",
    )  # fmt: skip
    made.add_argument(
        "--resume", type=folder, metavar="DIR", help="go on with the job whose state is in DIR, which is written on"
    )
    made.add_argument("--dry-run", action="store_true", help="print the command lines, to be pasted, and start nothing")
    made.add_argument("command", nargs=argparse.REMAINDER, help="what every worker runs")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `mxopt-launch`; returns the job's exit code."""
    try:
        options = parser().parse_args(arguments)
        if options.launcher is None:
            options.launcher = "ssh" if options.hostfile else "local"
        if options.num_servers is None:
            options.num_servers = options.num_workers
        if options.command[:1] == ["--"]:
            options.command = options.command[1:]
        return _run(options)
    except ArgumentError as error:
        print(f"mxopt-launch: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full
        print(f"mxopt-launch: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if not options.command:
        raise ArgumentError("needs a command, which every worker runs")
    job = secrets.token_hex(4)
    run_dir = Path(options.run_dir or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{job}")
    state = JobState(options, job, run_dir)
    plan = Plan(options, state.job, state.durability)
    plan.check()
    if options.dry_run:
        as_given(sys.stdout)
        with for_a_reader():
            print(*plan.dry(), sep="\n")
        return 0
    plan.check_programs()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"the folder for the logs can't be made: {error}") from None
    with state.held():
        return _start(plan, run_dir, state)


def _start(plan: Plan, run_dir: Path, state: JobState) -> int:
    """Runs the job; returns its exit code."""
    with signals() as wake:
        launch = _launch(plan, run_dir, wake, state.restarts)
        try:
            if plan.folder:
                plan.folder.mkdir(mode=0o700)
            launch.start(plan.scheduler)
            root = launch.endpoint("scheduler")
            if plan.options.launcher != "ray":  # where it listens on all addresses of this machine
                root = plan.host if plan.local else f"tcp://{plan.host}:{root.rpartition(':')[2]}"
            launch.terminal.say(f"mxopt-launch: the scheduler is at {root}")  # at a line's end, to be copied
            launch.terminal.say(f"mxopt-launch: the logs are in {run_dir}")
            if state.durability.root is not None:
                launch.terminal.say(f"mxopt-launch: the job's state is in {state.durability.root}")
            keys = plan.options.keys or ""
            with key_copies.copied(keys, plan.key_files, plan.options.username):
                launch.gone = lambda process, why: gone(root, keys, plan.job, process, why)
                for process in plan.started(root):
                    launch.start(process)
                return launch.wait(lambda: _never_joined(root, keys))
        except Interrupted as interrupted:
            _tell(f"stopped by {interrupted}")
            return 128 + interrupted.number
        except LaunchError as error:
            _tell(str(error))
            return 1
        finally:
            launch.stop()
            if launch.why:  # the last line, below what the other processes say of their end
                launch.terminal.say(f"mxopt-launch: {launch.why}")
            if plan.folder:
                shutil.rmtree(plan.folder, ignore_errors=True)


def _launch(plan: Plan, run_dir: Path, wake: int, restarts: Restarts) -> Launch:
    if plan.options.launcher != "ray":
        return Launch(run_dir, wake, plan.local, restarts=restarts)
    try:
        from mxopt_server.ray_launch import RayLaunch
    except ImportError as error:
        raise ArgumentError(f"--launcher ray needs the package ray: pip install 'mxopt[ray]' ({error})") from None
    keys = Path(plan.options.keys).read_text() if plan.options.keys else ""
    return RayLaunch(run_dir, wake, plan.options.sync_dst_dir or os.getcwd(), keys, restarts=restarts)


def _never_joined(scheduler: str, keys: str) -> str:
    """Asked when all workers have ended: why the others need not go on, "" where they are at their
    work."""
    try:
        found = status.scheduler_report(scheduler, keys)
    except MXOptError:
        return ""
    if found["state"] != "gathering":
        return ""
    return "all workers have ended, and not all had joined the job: kvstore.create('dist_sync') does that"


def gone(scheduler: str, keys: str, job: str, process: Process, why: str = "") -> None:
    """Tells the scheduler that a process has ended, so that its place is free at once; or, with
    `why`, that nobody takes it."""
    with contextlib.suppress(MXOptError):  # the scheduler finds out by itself, later
        status.tell_gone(scheduler, keys, job, process.role, process.rank, why)


def _tell(what: str) -> None:
    with contextlib.suppress(OSError):
        print(f"mxopt-launch: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":  # `python -m mxopt_server.launch` is `mxopt-launch`
    sys.exit(main())
