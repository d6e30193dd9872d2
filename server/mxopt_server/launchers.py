"""The command lines that start a job's processes on other machines: ssh, mpi, slurm."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """One process of a job: its role and number, its command, and its environment beside that of the launcher."""

    role: str
    rank: int
    command: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        return "scheduler" if self.role == "scheduler" else f"{self.role}-{self.rank}"


def hosts_of(text: str) -> list[str]:
    """The hosts of a host file: one a line, `host`, `host:port` or `host slots=n`; # begins a comment."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line.split()[0] for line in lines if line]


def ssh(process: Process, host: str, folder: str, user: str = "") -> list[str]:
    """Runs a process on `host` (`host:port` for another ssh port) in the same folder."""
    name, _, port = host.partition(":")
    there = f"cd {shlex.quote(folder)} && exec env {assignments(process.env)} {shlex.join(process.command)}"
    target = f"{user}@{name}" if user else name
    # -tt: the remote process ends with the connection, so that nothing is left behind.
    return [
        "ssh",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "BatchMode=yes",
        "-tt",
        *(["-p", port] if port else []),
        target,
        there,
    ]


def mpi(command: Sequence[str], count: int, env: Mapping[str, str], hostfile: str = "") -> list[str]:
    """Runs `count` copies of a command by mpirun (Open MPI), with `env` exported to them."""
    exported = [part for name, value in sorted(env.items()) for part in ("-x", f"{name}={value}")]
    hosts = ["--hostfile", hostfile] if hostfile else []
    return ["mpirun", "-n", str(count), *hosts, "--oversubscribe", *exported, *command]


def slurm(command: Sequence[str], count: int, nodes: int) -> list[str]:
    """Runs `count` copies of a command on `nodes` nodes by srun, with srun's own environment: in a list of variables on
    its command line a value couldn't hold a comma."""
    return [
        "srun", "--ntasks", str(count), "--nodes", str(nodes), "--kill-on-bad-exit=1", "--export=ALL", *command,
    ]  # fmt: skip


def assignments(env: Mapping[str, str]) -> str:
    """`env` as words for a shell."""
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(env.items()))
