"""The folders of a process, one for each of its epochs: segments of its journal, checkpoints, and
`sealed`, which says how long each segment was when the next epoch took over."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mxopt.document import dump_document, load_document, sync_folder, write_file
from mxopt.errors import StatesError
from mxopt.typing import Plain
from mxopt_server import segments

log = logging.getLogger("mxopt.server")

SEALED, NOTES = "sealed", "notes"
SEGMENT, CHECKPOINT = ".journal", ".checkpoint"


def epochs(home: Path) -> list[Path]:
    """The folders of all epochs of a process, the newest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((path for path in home.iterdir() if path.name.isdecimal()), reverse=True)
    return []


def complete_folder(home: Path) -> Path | None:
    """The folder of the newest epoch that had taken over from those before; None where there is
    none."""
    return next((path for path in epochs(home) if (path / SEALED).exists()), None)


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


class Folder:
    """The folder of an epoch of the process `who`, whose others are in `home`. Raises StatesError
    if the epoch has been before, OSError where the folder can't be made."""

    def __init__(self, home: Path, epoch: int, who: str = "") -> None:
        self.home, self.path, self._who = home, home / f"{epoch:08d}", who
        try:
            self.path.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            raise StatesError(f"{self.path}: there has been a process of this epoch before") from None
        for folder in (home, home.parent):  # a power cut leaves nothing in a folder that isn't entered itself
            sync_folder(folder)
        self._sealed: dict[int, int] = {}  # segments of earlier epochs, and how long they are

    def nbytes(self, first: int = 0) -> int:
        """Of the segments of earlier epochs, from number `first` on."""
        return sum(size for number, size in self._sealed.items() if number >= first)

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
        the number of its segment, and where in that it ends. Raises StatesError if a segment is
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


def lengths(folder: Path) -> dict[int, int | None]:
    """The segments in a folder, the oldest first, and how long each was sealed; None for those that
    its own process has written. Raises StatesError if that is damaged."""
    sealed = dict(content_in(folder / SEALED, "segments")["segments"])
    return {number: sealed.get(number) for number in numbers(folder, SEGMENT)}


def sealed_in(folder: Path) -> dict[int, int]:
    """The segments in a folder, and how long each is: as it was sealed, or, of those that its own
    process has written, up to the last record that is there in full. Raises StatesError if one
    is damaged."""
    sealed: dict[int, Any] = lengths(folder)
    found = list(sealed)
    for number in found:
        if sealed[number] is None:
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
