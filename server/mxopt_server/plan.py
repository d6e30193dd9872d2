"""The plan of a job: its processes with their commands and variables, on this or other
machines."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mxopt import settings
from mxopt.errors import ArgumentError
from mxopt.kvstore import unix
from mxopt.kvstore.address import check_host, checked_port
from mxopt.kvstore.keys import STDIN, load_keys
from mxopt.role import SAFE
from mxopt_server import cli, key_copies, launchers, metrics
from mxopt_server.durability import Durability
from mxopt_server.launchers import Process

OWN_RANKS = ("DMLC_SERVER_ID", "DMLC_WORKER_ID")
# Options of mxopt-server whose values are the job's.
OF_THE_JOB = ("role", "scheduler", "workers", "servers", "rank", "job", "keys", "durability", "state_dir")


class Plan:
    """The job that `options` of `mxopt-launch` ask for. Raises ArgumentError if it can't be
    started."""

    def __init__(self, options: argparse.Namespace, job: str, durability: Durability) -> None:
        self.options, self.job, self._durability = options, job, durability
        self.local = options.launcher == "local"
        self.folder = unix.job_folder() if self.local else None  # of this job's sockets
        self.host = f"{unix.SCHEME}{self.folder / 'scheduler'}" if self.folder else options.host or socket.gethostname()
        self.hosts = _hosts(options.hostfile)
        if options.launcher == "ssh" and not self.hosts:
            raise ArgumentError("--launcher ssh needs --hostfile, a file with one host a line")
        flags = SAFE if options.python == sys.executable else []  # another one may be too old for them
        self._program = (options.python, *flags, "-m", "mxopt_server")
        self.scheduler, *self.others = self._processes()

    def check(self) -> None:
        """Raises ArgumentError if what is asked for can't work: a host that doesn't exist, a value
        that a process wouldn't take, other machines in a job without keys."""
        options = self.options
        check_host(self.host)
        if options.launcher in ("ssh", "mpi"):
            for host in dict.fromkeys(self.hosts):
                launchers.check_host(host)
        if not (self.local or options.keys or options.insecure):
            raise ArgumentError(
                "beyond this machine a job needs --keys (`mxopt-server keygen` makes some), or --insecure"
            )
        keys = {**os.environ, **self.scheduler.env}.get("MXOPT_KVSTORE_KEYS", "")
        if STDIN in (keys, options.keys):
            raise ArgumentError("--keys -: a launcher hands the keys on as a file")
        load_keys(keys)
        if options.metrics_port is not None:
            checked_port(options.metrics_port + options.num_servers, "--metrics-port: the last server's")
            metrics.check_host(options.metrics_host)
        server = next(p for p in self.others if p.role == "server")
        try:
            given = cli.parsed(_words(options.server_args, "--server-args"))
            cli.parsed(server.command[len(self._program) :])
        except ArgumentError as error:
            raise ArgumentError(f"--server-args {options.server_args!r}: {error}") from None
        for name in OF_THE_JOB:
            if getattr(given, name) is not None:
                raise ArgumentError(f"--server-args: --{name.replace('_', '-')} is for mxopt-launch to say")
        for process in (self.scheduler, server, self.others[-1]):
            settings.check({**os.environ, **process.env})

    def check_programs(self) -> None:
        """Raises ArgumentError if a program that this machine has to run isn't here."""
        options = self.options
        if options.launcher != "ray" and shutil.which(options.python) is None:
            raise ArgumentError(f"--python {options.python}: there is no such program")
        if not self.local:
            program = launchers.PROGRAMS.get(options.launcher)
            if program is not None and shutil.which(program) is None:
                raise ArgumentError(f"--launcher {options.launcher} needs the program {program}, which isn't here")
            return
        name, path = options.command[0], self.others[-1].env.get("PATH")
        if shutil.which(name, path=path) is None:
            hint = ": it is neither on the PATH nor a file here"
            if os.path.isfile(name):
                hint = f": it isn't executable; `python {name}`?" if os.sep in name else f": `python {name}`?"
            raise ArgumentError(f"there is no program {name!r}{hint}")

    def started(self, root: str) -> list[Process]:
        """The servers and workers as commands of this machine, or on Ray of theirs, when the
        scheduler's address `root` is known."""
        host, _, port = root.removeprefix("tcp://").rpartition(":")
        address = {} if self.local else {"DMLC_PS_ROOT_URI": host, "DMLC_PS_ROOT_PORT": port}
        with_root = [replace(p, env={**p.env, **address}) for p in self.others]
        if self.options.launcher in ("local", "ray"):
            return with_root
        if self.options.launcher == "ssh":
            return [self._by_ssh(p, self.hosts[k % len(self.hosts)]) for k, p in enumerate(with_root)]
        return [self._together([p for p in with_root if p.role == role]) for role in ("server", "worker")]

    def dry(self) -> list[str]:
        """All commands, as lines for a shell; the scheduler's port is one that is free now."""
        if self.local:
            return [p.line for p in (self.scheduler, *self.others)]
        with socket.create_server(("", 0)) as free:
            port = str(free.getsockname()[1])
        scheduler = replace(self.scheduler, command=(*self.scheduler.command[:-1], port))
        copies = [
            f"{shlex.join(key_copies.copy(host, path, self.options.username))} < {shlex.quote(self.options.keys)}"
            for host, path in self.key_files.items()
        ]
        return [*copies, *(p.line for p in (scheduler, *self.started(f"tcp://{self.host}:{port}")))]

    def _processes(self) -> list[Process]:
        """The scheduler, the servers and the workers, all but the scheduler's port."""
        options = self.options
        shared = {
            "DMLC_NUM_WORKER": str(options.num_workers), "DMLC_NUM_SERVER": str(options.num_servers),
            "DMLC_PS_ROOT_URI": self.host, "MXOPT_JOB_ID": self.job,
        }  # fmt: skip
        if self.local and "OMP_NUM_THREADS" not in os.environ:
            # Each worker's BLAS would take all cores for itself, and wait for the others' by
            # spinning.
            shared["OMP_NUM_THREADS"] = str(max(1, settings.usable_cores() // options.num_workers))
        shared |= assignments(options.env)
        if options.keys:
            shared["MXOPT_KVSTORE_KEYS"] = os.path.abspath(options.keys)
        serve = [*self._program, *([] if self.local else ["--bind", "0.0.0.0"])]
        serve += [*self._durability.arguments, *(["--insecure"] if options.insecure else [])]
        watched = ["--metrics-host", options.metrics_host] if options.metrics_port is not None else []
        serve += watched
        door = [] if options.metrics_port is None else ["--metrics-port", str(options.metrics_port)]
        door += [] if self.local else ["--port", "0"]  # the port is the last word
        made = [Process("scheduler", 0, (*serve, *door), {**shared, "DMLC_ROLE": "scheduler"})]
        serve += ["--metrics-port", f"{options.metrics_port + 1}+RANK"] if watched else []
        more = _words(options.server_args, "--server-args")
        for rank in range(options.num_servers):
            ranked = options.launcher in ("local", "ssh", "ray")  # else all servers have one command line
            arguments = [a.replace("RANK", str(rank)) if ranked else a for a in more]
            env = {**shared, **assignments(options.env_server), "DMLC_ROLE": "server", "DMLC_SERVER_ID": str(rank)}
            made.append(Process("server", rank, (*serve, *arguments), env))
        for rank in range(options.num_workers):
            env = {**shared, **assignments(options.env_worker), "DMLC_ROLE": "worker", "DMLC_WORKER_ID": str(rank)}
            made.append(Process("worker", rank, tuple(options.command), env))
        return made

    @property
    def key_files(self) -> dict[str, str]:
        """Where the keys are on the hosts that ssh brings them to."""
        if self.options.launcher != "ssh" or not self.options.keys:
            return {}
        return {host: key_copies.path_on(k, self.job) for k, host in enumerate(dict.fromkeys(self.hosts))}

    def _by_ssh(self, process: Process, host: str) -> Process:
        if self.options.keys:
            process = replace(process, env={**process.env, "MXOPT_KVSTORE_KEYS": self.key_files[host]})
        if process.role == "server":
            process = replace(process, env={"DMLC_NODE_HOST": host.partition(":")[0], **process.env})
        folder = self.options.sync_dst_dir or os.getcwd()
        command = launchers.ssh(process, host, folder, self.options.username)
        return replace(process, command=tuple(command), env={})

    def _together(self, same: Sequence[Process]) -> Process:
        """All processes of one role as one command of mpirun or srun."""
        role, command, count = same[0].role, same[0].command, len(same)
        env = {k: v for k, v in same[0].env.items() if k not in OWN_RANKS}
        if self.options.launcher == "mpi":
            return Process(role, 0, tuple(launchers.mpi(command, count, env, self.options.hostfile or "")), {})
        nodes = math.ceil(count / len(self.hosts)) if self.hosts else count
        return Process(role, 0, tuple(launchers.slurm(command, count, nodes)), env)


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """The variables that `NAME=VALUE` or `NAME:VALUE` set, and `NAME` hands on. Raises
    ArgumentError for what is none of them, and for a NAME that isn't set here."""
    found = {}
    for text in texts:
        parts = re.fullmatch(r"([A-Za-z_]\w*)(?:[=:](.*))?", text, re.DOTALL | re.ASCII)
        if parts is None:
            raise ArgumentError(f"{text!r}: needs NAME=VALUE, or the NAME of a variable to hand on")
        name, value = parts[1], parts[2] if parts[2] is not None else os.environ.get(parts[1])
        if value is None:
            raise ArgumentError(f"the variable {name} isn't set here, so it can't be handed on: give {name}=VALUE")
        found[name] = value
    return found


def _hosts(path: str | None) -> list[str]:
    if not path:
        return []
    try:
        found = launchers.hosts_of(Path(path).read_text("utf-8"))
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"the host file {path}, a text with one host a line, can't be read: {error}") from None
    if not found:
        raise ArgumentError(f"the host file {path} names no host: it has one a line")
    return found


def _words(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ArgumentError(f"{name} {text!r}: {error}") from None
