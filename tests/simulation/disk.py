"""The disk of a simulated server, and how it dies with it: its real journal and checkpoints, in a
real folder."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from mxopt_server.durability import Durability
from mxopt_server.epoch_folder import SEGMENT, name
from mxopt_server.kept import Kept
from mxopt_server.records import Record
from simulation.world import Process

MOMENTS = ("before", "torn", "after", "answer")  # with "power" for a disk that is synced
AGAIN = (*MOMENTS, "opened")  # when servers die that had died before


class Died(BaseException):
    """Ends a server in the middle of what it does."""


class Disk:
    """What server `rank` keeps by `durability`, over its restarts.

    `crash` says when the server dies: with which of its records, "before" that is written, when it
    is "torn" or "after" it, or before the "answer" leaves; "power" is before the answer too, and
    takes what wasn't synced. `again` times it dies soon after it has come back, also as soon as it
    has "opened" what there is.
    """

    def __init__(
        self, durability: Durability, rank: int, crash: tuple[int, str] | None, seed: random.Random, again: int = 0
    ) -> None:
        self.durability, self.rank, self.crash, self._random, self._again = durability, rank, crash, seed, again
        self.records = 0  # so far
        self.opened: list[Kept] = []
        self._synced: tuple[Path | None, int] = (None, 0)  # how much of the last segment a power cut leaves

    def open(self, epoch: int, goes_on: int, process: Process) -> tuple[Kept | None, Journal]:
        """What the server of an epoch has of it."""
        kept = None
        if self.durability.kind != "none":
            kept = Kept(
                self.durability, "job", self.rank, epoch, goes_on, lambda **how: Beside(process, self._random, **how)
            )
            kept.large = 1000
            self.opened.append(kept)
        self.die("opened")
        return kept, Journal(self, kept)

    def close(self) -> None:
        """Closes the files of all epochs."""
        for kept in self.opened:
            if kept.journal is not None:
                kept.journal.fsync = False  # its folder may be gone
                kept.journal.close()

    def die(self, moment: str) -> None:
        """Ends the server if that is to be now."""
        if self.crash is None or self.crash[1] != moment or self.records < self.crash[0]:
            return
        self.crash = None
        if self._again:
            self._again -= 1
            self.crash = self.records + self._random.randint(0, 20), self._random.choice(AGAIN)
        raise Died

    def tear(self, path: Path, before: int, moment: str) -> None:
        """The same, when some of what the last segment has got behind a byte isn't kept."""
        if self.crash is not None and self.crash[1] == moment and self.records >= self.crash[0]:
            os.truncate(path, self._random.randint(before, max(before, path.stat().st_size - 1)))
            self.die(moment)

    def synced(self, path: Path) -> int:
        """How much of a segment a power cut leaves at least."""
        return self._synced[1] if self._synced[0] == path else 0

    def sync(self, path: Path) -> None:
        """All of a segment is on the disk."""
        self._synced = path, path.stat().st_size


class Journal:
    """The journal of a process, which dies as its disk says; without a real one nothing is kept."""

    def __init__(self, disk: Disk, kept: Kept | None) -> None:
        self._disk = disk
        self._real = None if kept is None else kept.journal
        self._folder = None if kept is None else kept.folder.path
        self.together = self._real is not None and self._real.together

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        assert self._real is not None
        return self._folder / name(self._real.number, SEGMENT)

    def append(self, record: Record) -> None:
        disk = self._disk
        disk.die("before")
        disk.records += 1
        if self._real is not None:
            path, size = self._path, self._path.stat().st_size
            self._real.append(record)
            disk.tear(self._path, size if self._path == path else 0, "torn")
        disk.die("after")

    def commit(self) -> None:
        if self._real is not None:
            if self.together:
                self._disk.tear(self._path, self._disk.synced(self._path), "power")
            self._real.commit()
            if self.together:
                self._disk.sync(self._path)
        self._disk.die("answer")


class Beside:
    """What a server does in another thread, some time later."""

    def __init__(self, process: Process, seed: random.Random, target: Any, args: Any, **named: Any) -> None:
        self._process, self._target, self._args = process, target, args
        self._seconds, self._done = seed.uniform(0, 3), False

    def start(self) -> None:
        self._process.world.at(self._process.world.now + self._seconds, self._run)

    def is_alive(self) -> bool:
        return not self._done

    def join(self, seconds: float) -> None:
        self._run()

    def _run(self) -> None:
        if not self._done and not self._process.dead:
            self._done = True
            self._target(*self._args)
