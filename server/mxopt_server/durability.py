"""What a job keeps on disk, and the command-line options for it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mxopt.errors import ArgumentError
from mxopt_server.arguments import Parser, folder, seconds

KINDS = ("none", "snapshot", "journal")
EVERY_S = 60.0


@dataclass(frozen=True)
class Durability:
    """What is kept in the folder `root`: with `none` nothing; with `snapshot` a checkpoint every so
    many seconds; with `journal` everything, with `fsync` on the disk before anybody hears of it."""

    kind: str = "none"
    root: Path | None = None
    every: float = EVERY_S
    fsync: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """These as options of a server or scheduler."""
        if self.root is None:
            return ("--durability", self.kind)
        given = ("--durability", self.kind, "--state-dir", str(self.root), "--snapshot-every", f"{self.every:g}")
        return (*given, "--fsync") if self.fsync else given


@dataclass(frozen=True)
class Restarts:
    """How often each server that was killed is started again: `most` times, with `elastic` in
    asynchronous jobs only. What comes back from a snapshot is older than what the other servers
    have, which ends a synchronous job."""

    most: int = 0
    elastic: bool = False

    def left(self, used: int, elastic: bool) -> int:
        """How many are left after so many, in a job that is `elastic` or isn't."""
        return self.most - used if elastic or not self.elastic else 0


NO_RESTARTS = Restarts()


def add_durability(parser: Parser, usual: str, where: str) -> None:
    """The options that say it; `usual` and `where` are the words for what holds where they aren't
    given."""
    parser.add_argument(
        "--durability", choices=KINDS, help=f"what outlives the job's processes: nothing, a checkpoint every "
        f"--snapshot-every seconds, or everything ({usual})",
    )  # fmt: skip
    parser.add_argument("--state-dir", type=folder, metavar="DIR", help=f"where it is kept ({where})")
    parser.add_argument(
        "--snapshot-every", type=seconds, default=EVERY_S, metavar="S", help="seconds between snapshots (%(default)g)"
    )
    parser.add_argument("--fsync", action="store_true", help="with --durability journal: keep it over a power cut, too")


def durability(options: argparse.Namespace, kind: str, root: Path | None) -> Durability:
    """What the options ask for, where `kind` and `root` are already known. Raises ArgumentError
    if they don't go together."""
    if options.fsync and kind != "journal":
        raise ArgumentError(f"--fsync is for --durability journal, not {kind}")
    if options.state_dir is not None and kind == "none":
        raise ArgumentError("--state-dir is for --durability snapshot or journal: with none nothing is kept")
    if kind != "none" and root is None:
        raise ArgumentError(f"--durability {kind} needs --state-dir, the folder in which the state is kept")
    return Durability(kind, None if kind == "none" else root, options.snapshot_every, options.fsync)
