"""The command lines that start a job's processes on other machines: ssh, mpi, slurm."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mxopt.errors import ArgumentError
from mxopt.kvstore.address import checked_port

PROGRAMS = {"ssh": "ssh", "mpi": "mpirun", "slurm": "srun"}  # what a launcher runs on this machine
ASK_S = 10.0  # how long ssh may take to say how it is configured


@dataclass(frozen=True)
class Process:
    """One process of a job: its role and number, its command, and its environment beside that of
    the launcher."""

    role: str
    rank: int
    command: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        return "scheduler" if self.role == "scheduler" else f"{self.role}-{self.rank}"

    @property
    def line(self) -> str:
        """The process as a line for a shell."""
        return shlex.join(with_env(self.env, self.command))


def with_env(env: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """A command that runs `command` with more variables."""
    return ["env", *(f"{name}={value}" for name, value in sorted(env.items())), *command] if env else [*command]


def hosts_of(text: str) -> list[str]:
    """The hosts of a host file: one a line, `host`, `host:port` or `host slots=n`; # begins a
    comment."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line.split()[0] for line in lines if line]


def check_host(host: str) -> None:
    """Raises ArgumentError for a host that ssh couldn't find: one that is neither `name` nor
    `name:port`, or whose name means nothing to ssh's configuration nor to the system."""
    name, colon, port = host.partition(":")
    if not name or name.startswith("-") or (colon and not port.isdecimal()):
        raise ArgumentError(f"the host {host!r}: needs HOST or HOST:PORT")
    if colon:
        checked_port(int(port), f"the host {host!r}: the port")
    found = _hostname(name)
    try:
        if found:
            socket.getaddrinfo(found, None)
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"the host {host!r} can't be resolved: {error}") from None


def _hostname(name: str) -> str:
    """What ssh takes a name for; "" where that can't be known, or others find it (ProxyJump)."""
    try:
        asked = subprocess.run(["ssh", "-G", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    told = dict(re.findall(r"^(\S+) (.*)$", asked.stdout.decode(errors="replace"), re.MULTILINE))
    return "" if asked.returncode or "proxyjump" in told or "proxycommand" in told else told.get("hostname", "")


def ssh(process: Process, host: str, folder: str, user: str = "") -> list[str]:
    """Runs a process on `host` (`host:port` for another ssh port) in the same folder. Whether an
    unknown host is trusted is for the user's own configuration of ssh to say."""
    there = f"cd {shlex.quote(folder)} && exec {process.line}"
    # -tt: the remote process ends with the connection, so that nothing is left behind.
    return [*ssh_target(host, user, "-tt"), there]


def ssh_target(host: str, user: str, *options: str) -> list[str]:
    """The beginning of a command that ssh runs on `host`."""
    name, _, port = host.partition(":")
    return ["ssh", "-o", "BatchMode=yes", *options, *(["-p", port] if port else []), f"{user}@{name}" if user else name]


def mpi(command: Sequence[str], count: int, env: Mapping[str, str], hostfile: str = "") -> list[str]:
    """Runs `count` copies of a command by mpirun (Open MPI), with `env` exported to them."""
    exported = [part for name, value in sorted(env.items()) for part in ("-x", f"{name}={value}")]
    hosts = ["--hostfile", hostfile] if hostfile else []
    return ["mpirun", "-n", str(count), *hosts, "--oversubscribe", *exported, *command]


def slurm(command: Sequence[str], count: int, nodes: int) -> list[str]:
    """Runs `count` copies of a command on `nodes` nodes by srun, with srun's own environment: in a
    list of variables on its command line a value couldn't hold a comma."""
    return [
        "srun", "--ntasks", str(count), "--nodes", str(nodes), "--kill-on-bad-exit=1", "--export=ALL", *command,
    ]  # fmt: skip
