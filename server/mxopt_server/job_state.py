"""The folder in which a job keeps its state, as its launcher manages it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mxopt.errors import ArgumentError
from mxopt.typing import Plain
from mxopt_server import state_dir
from mxopt_server.durability import Restarts, durability

RESTARTS = 3  # of each server that was killed
TOGETHER = ("mpi", "slurm")  # launchers that run all servers by one command


class JobState:
    """The state of the job that `options` of `mxopt-launch` ask for: `job`, a new one's name,
    unless they resume another. Raises ArgumentError if they don't go together, or not with the
    job that is resumed.

    Attributes
    ----------
    job : the job's name
    durability : Durability
    restarts : Restarts
    """

    def __init__(self, options: argparse.Namespace, job: str, run_dir: Path) -> None:
        self._resumes = options.resume is not None
        self._facts: Plain = {"workers": options.num_workers, "servers": options.num_servers}
        kind, root = options.durability, options.state_dir or run_dir / "state"
        if options.state_dir is None and (root / "job").exists():  # of another job with the same folder for its logs
            root = run_dir / f"state-{job}"
        if self._resumes:
            if options.state_dir:
                raise ArgumentError("--resume DIR goes on in DIR: --state-dir is for a new job")
            root = options.resume
            known = state_dir.resume(root, self._facts | ({"durability": kind} if kind else {}), _here(options))
            job, kind = known["job"], known["durability"]
        elif kind is None:  # servers' own snapshots were there first
            kind = "none" if "--snapshot" in options.server_args.replace("=", " ").split() else "snapshot"
        self.job, self.durability = job, durability(options, kind, root.absolute())
        self._facts |= {"job": job, "durability": kind}
        self.restarts = Restarts(self._allowed(options), elastic=kind != "journal")

    def _allowed(self, options: argparse.Namespace) -> int:
        why = ""
        if self.durability.kind == "none":
            why = "without --durability a server that is started again has lost everything"
        elif options.launcher in TOGETHER:
            why = f"--launcher {options.launcher} runs all servers by one command"
        if options.restarts and why:
            raise ArgumentError(f"--restarts {options.restarts} can't be: {why}")
        return 0 if why else RESTARTS if options.restarts is None else int(options.restarts)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for this launcher. Raises ArgumentError if another job's state is
        there, or another launcher has it."""
        root = self.durability.root
        if root is None:
            yield
            return
        lock = state_dir.lock(root)
        try:
            if not self._resumes:
                state_dir.begin(root, self._facts)
            yield
        finally:
            os.close(lock)


def _here(options: argparse.Namespace) -> list[str]:
    """The members of a job whose state is kept on this machine, as their folders are called."""
    servers = [f"server-{rank}" for rank in range(options.num_servers)] if options.launcher == "local" else []
    return servers if options.launcher == "ray" else ["scheduler", *servers]
