"""The folder in which a job keeps what outlives its processes.

::

    job                    the job's facts, which do not change
    lock                   held by the launcher that runs the job
    scheduler/EPOCH/       what the scheduler keeps
    server-RANK/EPOCH/     what a server keeps: segments of its journal, checkpoints, `sealed`

A process creates and renames only within a folder of its epoch, which nobody has had before, and
below it. One that is stopped while another takes its place therefore can't harm that when it wakes:
its successor has linked what it needs into a folder of its own, and has written down (`sealed`) how
long each segment was then. It then deletes the folders of the epochs before, in which nobody can
make a file any more; with their links each restart would keep another journal on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
from collections import UserDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mxopt.document import dump_document, load_document, write_file
from mxopt.errors import ArgumentError, StatesError
from mxopt.typing import Document, Plain
from mxopt_server import segments

log = logging.getLogger("mxopt.server")

SEALED, NOTES = "sealed", "notes"
SEGMENT, CHECKPOINT = ".journal", ".checkpoint"


def lock(root: Path) -> int:
    """Makes the folder, and holds it for this process until the file descriptor is closed. Raises
    ArgumentError where a launcher that lives has it."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ArgumentError(f"the state folder {root} can't be used: {error}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise ArgumentError(f"the state folder {root} is in use by a job that runs") from None
    return held


def begin(root: Path, facts: Document) -> None:
    """Writes down a new job's facts. Raises ArgumentError where the folder has another job's
    state."""
    if (root / "job").exists():
        raise ArgumentError(
            f"the state folder {root} has the state of a job: go on with it by --resume {root}, or give another folder"
        )
    try:
        write_file(root / "job", dump_document(dict(facts)))
    except OSError as error:
        raise ArgumentError(f"the state folder {root} can't be used: {error}") from None


def resume(root: Path, facts: Document, members: Iterable[str] = ()) -> Plain:
    """The facts of the job whose state is there. Raises ArgumentError where there is none, one of
    `facts` was another, or nothing is there of one of the `members`."""
    try:
        kept = content_in(root / "job", "job", "durability")
    except FileNotFoundError:
        raise ArgumentError(f"there is no job to resume in {root}") from None
    except (OSError, StatesError) as error:
        raise ArgumentError(f"the job in {root} can't be resumed: {error}") from None
    for name, value in facts.items():
        if kept.get(name) != value:
            raise ArgumentError(f"the job in {root} has {name} {kept.get(name)}, not {value}")
    for member in members:
        if not any((path / file).exists() for path in epochs(root / member) for file in (SEALED, NOTES)):
            raise ArgumentError(
                f"the job in {root} can't be resumed: what {member} had kept isn't there; it can only be begun anew"
            )
    return kept


def content_in(path: Path, *entries: str) -> Plain:
    """The content of the document in a file, which has these entries. Raises StatesError, which
    names the file, where it hasn't."""
    try:
        found = load_document(path.read_bytes())
    except StatesError as error:
        raise StatesError(f"{path}: {error}") from error
    for entry in entries:
        if entry not in found:
            raise StatesError(f"{path} is another document: it has no {entry!r}")
    return found


def epochs(home: Path) -> list[Path]:
    """The folders of all epochs of a process, the newest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((path for path in home.iterdir() if path.name.isdecimal()), reverse=True)
    return []


def complete_folder(home: Path) -> Path | None:
    """The folder of the newest epoch that had taken over from those before; None where there is
    none."""
    return next((path for path in epochs(home) if (path / SEALED).exists()), None)


class Notes(UserDict[Any, Any]):
    """A few plain values that the process of `home` keeps: those of its epoch before, to begin
    with. Each change is on the disk before it returns."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        before = epochs(home)
        path = next((path / NOTES for path in before if (path / NOTES).exists()), None)
        if path is not None:
            self.data = content_in(path)
        self._path = Folder(home, 1 + max((int(path.name) for path in before), default=0)).path / NOTES
        write_file(self._path, dump_document(self.data))

    def __setitem__(self, name: Hashable, value: object) -> None:
        if name not in self.data or self.data[name] != value:
            write_file(self._path, dump_document(dict(self.data) | {name: value}))
            super().__setitem__(name, value)


class Folder:
    """The folder of an epoch of the process `who`, whose others are in `home`. Raises StatesError
    where the epoch has been before, OSError where the folder can't be made."""

    def __init__(self, home: Path, epoch: int, who: str = "") -> None:
        self.home, self.path, self._who = home, home / f"{epoch:08d}", who
        try:
            self.path.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            raise StatesError(f"{self.path}: there has been a process of this epoch before") from None
        self._sealed: dict[int, int] = {}  # segments of earlier epochs, and how long they are

    @property
    def nbytes(self) -> int:
        """Of the segments of earlier epochs."""
        return sum(self._sealed.values())

    def take_over(self, last: int | None = None, is_last: Callable[[memoryview], bool] | None = None) -> None:
        """Links what the last complete epoch has left, so that this one is complete too. With
        `last` checkpoints of higher numbers are left out, and records behind the one that `is_last`
        tells, which must be there, or without it checkpoint `last`; for 0 that is all. Raises
        StatesError where what is needed is damaged, missing or another process'; all is as it was
        then."""
        before = [path for path in epochs(self.home) if path.name < self.path.name]
        if last != 0:
            self._link_newest(last)
            if is_last is not None:
                self._cut(is_last)
            elif last is not None and last not in numbers(self.path, CHECKPOINT):
                raise StatesError(f"{self.home}: checkpoint {last}, from which the job goes on, isn't there")
        pairs = [list(pair) for pair in self._sealed.items()]
        write_file(self.path / SEALED, dump_document({"who": self._who, "segments": pairs}))
        for path in before:
            shutil.rmtree(path, ignore_errors=True)

    def _link_newest(self, last: int | None) -> None:
        """Links what the newest complete epoch has."""
        while (complete := complete_folder(self.home)) is not None:
            try:
                self._link(complete, last)
            except FileNotFoundError:
                if complete_folder(self.home) == complete:
                    raise
                # One between, which was stopped as it took over, has woken and come first: its
                # folder has the same.
                for kind in (CHECKPOINT, SEGMENT):
                    for number in numbers(self.path, kind):
                        (self.path / name(number, kind)).unlink()
            else:
                return

    def _link(self, older: Path, last: int | None) -> None:
        whose = content_in(older / SEALED, "who")["who"]
        if whose != self._who:
            raise StatesError(f"{older} has what {whose} has kept, and this is {self._who}")
        self._sealed = sealed_in(older)
        checkpoints = [number for number in numbers(older, CHECKPOINT) if last is None or number <= last]
        for kind, found in ((CHECKPOINT, checkpoints), (SEGMENT, list(self._sealed))):
            for number in found:
                os.link(older / name(number, kind), self.path / name(number, kind))

    def _cut(self, is_last: Callable[[memoryview], bool]) -> None:
        """Seals the segments behind the last record that `is_last` tells."""
        for number in reversed(self._sealed):
            ends = [end for end, body in self.read_segment(number) if is_last(body)]
            if ends:
                self._sealed[number] = ends[-1]
                for later in [each for each in self._sealed if each > number]:
                    del self._sealed[later]
                    (self.path / name(later, SEGMENT)).unlink()
                return
        raise StatesError(f"{self.home}: the cut to go on from isn't in the journal")

    def read_segment(self, number: int) -> Iterator[tuple[int, memoryview]]:
        """(where it ends, body) of each record of a segment of earlier epochs."""
        return segments.read(self.path / name(number, SEGMENT), self._sealed[number])

    def read(self, first: int) -> Iterator[tuple[tuple[int, int], memoryview]]:
        """(where it is, body) of the records of earlier epochs from segment `first` on, 0 for all:
        the number of its segment, and where in that it ends. Raises StatesError where a segment is
        missing."""
        first = max(first, 1)
        found = [number for number in self._sealed if number >= first]
        if found != list(range(first, first + len(found))):
            raise StatesError(f"{self.path}: the journal lacks a segment from number {first} on, there are {found}")
        for number in found:
            for end, body in self.read_segment(number):
                yield (number, end), body

    def next_segment(self) -> int:
        """The number of a segment that this epoch is to make."""
        return max([0, *numbers(self.path, SEGMENT)]) + 1

    def drop(self, checkpoint: int, segment: int) -> None:
        """Forgets checkpoints before number `checkpoint` and segments before number `segment`."""
        for kind, first in ((CHECKPOINT, checkpoint), (SEGMENT, segment)):
            for number in numbers(self.path, kind):
                if number < first:
                    (self.path / name(number, kind)).unlink(missing_ok=True)
                    if kind == SEGMENT:
                        self._sealed.pop(number, None)


def sealed_in(folder: Path) -> dict[int, int]:
    """The segments in a folder, and how long each is: as it was sealed, or, of those that its own
    process has written, up to the last record that is there in full. Raises StatesError where one
    is damaged."""
    sealed = dict(content_in(folder / SEALED, "segments")["segments"])
    found = numbers(folder, SEGMENT)
    for number in found:
        if number not in sealed:
            path = folder / name(number, SEGMENT)
            sealed[number] = segments.valid_length(path)
            size = path.stat().st_size
            if number != found[-1] and sealed[number] != size:
                raise StatesError(f"the journal {path} is damaged at byte {sealed[number]}")
            if sealed[number] != size:
                log.warning("the journal %s has %d bytes, of which those behind byte %d are no record in full: they"
                            " are left out", path, size, sealed[number])  # fmt: skip
    return {number: sealed[number] for number in found if sealed[number]}


def name(number: int, kind: str) -> str:
    """The name of a segment's or checkpoint's file."""
    return f"{number:012d}{kind}"


def numbers(folder: Path, kind: str) -> list[int]:
    """The numbers of the files of a kind in a folder, ascending."""
    stems = (path.name.removesuffix(kind) for path in folder.iterdir() if path.name.endswith(kind))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
