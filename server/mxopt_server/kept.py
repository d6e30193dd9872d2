"""What a server keeps in its job's state folder: checkpoints, and the journal since the last of
them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mxopt.errors import KVStoreError, StatesError
from mxopt_server import failures, segments, snapshot
from mxopt_server.durability import Durability
from mxopt_server.epoch_folder import CHECKPOINT, SEGMENT, Folder, complete_folder, lengths, name, numbers
from mxopt_server.failures import ASIDE, TWICE
from mxopt_server.journal import Journal, decode, is_cut
from mxopt_server.records import Cut, Record, Refusal, Update, described
from mxopt_server.server import Server
from mxopt_server.snapshot_writer import SnapshotWriter

log = logging.getLogger("mxopt.server")

LARGE = 1 << 30  # bytes of a journal before a checkpoint is asked for, at least
TIMES = 4  # as many as of values and states, else
CUTS = 16  # of those in a journal, that a job may be resumed from
SHORT = 255  # bytes of a record, which a cut's has at most


def cuts_of(durability: Durability, rank: int) -> list[int]:
    """The newest cuts that a server has in its journal. Of its segments only the last is read in
    full: of those before, as many as these are in, what may be a cut. Raises StatesError if what is
    read is damaged."""
    found: list[int] = []
    if durability.kind != "journal" or durability.root is None or rank < 0:
        return found
    complete = complete_folder(durability.root / f"server-{rank}")
    if complete is None:
        return found
    sealed = lengths(complete)
    last = max(sealed, default=0)
    while sealed and len(found) < CUTS:
        number, length = sealed.popitem()
        path = complete / name(number, SEGMENT)
        if length is None:
            length = segments.valid_length(path) if number == last else path.stat().st_size
        records = [decode(body) for _, body in segments.read(path, length, SHORT)] if length else []
        found = [record.number for record in records if isinstance(record, Cut)] + found
    return found[-CUTS:]


class Hopeless(BaseException):
    """A record at which a server fails whenever it applies it."""


class Kept:
    """What server `rank` of a job keeps from its epoch `epoch` on.

    Parameters
    ----------
    durability : with a folder
    goes_on : the cut from which all servers of a resumed job go on, 0 for none, or -1 or -2 for
        all, as in Welcome
    thread : what makes the threads that write checkpoints

    Attributes
    ----------
    journal : Journal or None
    written : the number of the newest checkpoint that is there in full, 0 for none
    large : bytes of a journal before a checkpoint is asked for, at least
    """

    def __init__(
        self,
        durability: Durability,
        job: str,
        rank: int,
        epoch: int,
        goes_on: int = -1,
        thread: Callable[..., Any] = threading.Thread,
    ) -> None:
        assert durability.root is not None
        self.every, self.large, self._thread = durability.every, LARGE, thread
        journaled = durability.kind == "journal"
        home = durability.root / f"server-{rank}"
        before = complete_folder(home) if journaled and goes_on < 0 else None
        self._failures = {} if before is None else failures.left_by(before)
        if goes_on == -1:  # the job is taken up again, with all there is
            aside = {place: (ASIDE, how) for place, (times, how) in self._failures.items() if times != 1}
            self._failures |= aside
        self.folder = Folder(home, epoch, f"server {rank} of job {job}")
        failures.write(self.folder.path, self._failures)
        if goes_on < 0:
            self.folder.take_over()
        else:
            self.folder.take_over(goes_on, is_cut(goes_on) if journaled else None)
        self._came_back = goes_on == -2
        self.journal = Journal(self.folder, durability.fsync) if journaled else None
        self.written = max([0, *numbers(self.folder.path, CHECKPOINT)])
        self._begun = self.written  # the number of the last that was begun
        self._base = self.written  # the checkpoint before which nothing is kept
        self._segments: dict[int, int] = {}  # by checkpoint: the first that is needed beside it

    def restore(self, server: Server) -> None:
        """Makes a fresh `server` what was kept. Raises StatesError if that is damaged, or a
        record can't be applied that wasn't refused before."""
        self._server, self._writer, self._last = server, SnapshotWriter(server, self._thread), server.clock()
        server.cuts.keep = self.checkpoint
        first, count = 1, 0
        if self.written:
            path = self._path(self.written)
            content = snapshot.restore(server, path)
            if content["job"] != server.job:
                raise StatesError(f"the checkpoint {path} is of job {content['job']}, this is job {server.job}")
            first = self._segments[self.written] = content["segment"]
        raised: Exception | None = None  # by the record before, as when it was refused
        for place, body in self.folder.read(first):
            count += 1
            assert self.journal is not None
            record = decode(body)
            if raised is not None and not isinstance(record, Refusal):
                raise StatesError(f"server {server.rank} lacks what its journal rests on: {raised}") from raised
            raised = None
            self.journal.applying.begin(place)
            try:
                self._again(place, record)
            except Exception as error:
                raised = error
            self.journal.applying.end()
            server.applier.progress.count += 1
        if raised is not None and self.journal is not None:  # it was killed before it had refused it
            self.journal.append(Refusal(str(raised)))
        if self.written or count:
            log.info("goes on from checkpoint %d and %d records of the journal", self.written, count)

    def _again(self, place: failures.RecordPlace, record: Record) -> None:
        """Applies a record of an epoch before. Raises Hopeless if servers have failed at it
        twice; when the job is taken up after that, it is left out, as one that the optimizer
        refuses."""
        if place in self._failures:
            times, how = self._failures[place]
            if times >= TWICE:
                server = f"server {self._server.rank}"
                raise Hopeless(f"{server} has failed {times} times at {described(record)}, the last time by: {how}")
            log.warning("servers have failed at %s before, by: %s", described(record), how)
            if times == ASIDE:
                if not isinstance(record, Update):
                    return
                why = KVStoreError(f"servers have failed at this update twice ({how}), so it was left out")
                record = replace(record, value=None, error=why)
        self._server.machine.apply(record)

    def check_alone(self) -> None:
        """Raises KVStoreError if this server has come back to a job that others have gone on
        with, and has lost what they count on."""
        members = self._server.members
        if self.journal is None and self._came_back and not members.apart:
            since = f"has changed since checkpoint {self.written}" if self.written else "it had"
            raise KVStoreError(
                f"server {self._server.rank} has died, and without a journal what {since} is lost"
                + " (there was no checkpoint yet)" * (not self.written)
            )

    def tick(self, exists: int) -> None:
        """Called often by the loop, with the number of the newest checkpoint that all servers
        have."""
        if not self._server.members.mode:
            return
        if self._server.members.apart:
            self._alone()
            return
        if exists > self._base and exists in self._segments:
            self._drop(exists)
        if not self._writer.busy and self._begun > self.written and self._writer.written == self._path(self._begun):
            self._leave_out(exists)
            self.written = self._begun

    def _leave_out(self, exists: int) -> None:
        """Removes checkpoints that not all servers have had, where a newer one of this server takes
        the place of the last: a server that fails to write its own may do so for long. The last
        stays, which may exist though this server hasn't heard of it."""
        for number in numbers(self.folder.path, CHECKPOINT):
            if exists < number < self.written:
                self._path(number).unlink()
                self._segments.pop(number, None)

    def _alone(self) -> None:
        """A checkpoint of this server by itself: nobody else's state has to fit."""
        if self._writer.busy:
            return
        if self._begun > self.written and self._writer.written == self._path(self._begun):
            self.written = self._begun
            self._drop(self.written)
        failed = self._begun > self.written
        if self.journal is not None and not self.full:
            return
        if (self.journal is not None and not failed) or self._server.clock() - self._last >= self.every:
            self.checkpoint(self._begun + 1)

    @property
    def full(self) -> bool:
        """Whether the journal since the newest checkpoint is so large that another should replace
        it."""
        size = 0 if self.journal is None else self.journal.nbytes(self._segments.get(self.written, 0))
        return size > self.large and size > TIMES * snapshot.nbytes(self._server)

    def checkpoint(self, number: int, enter: Callable[[], None] = lambda: None) -> None:
        """Begins a checkpoint of this moment. The record of its cut, which `enter` makes, is behind
        it in the journal, and there before it: a job goes on from both."""
        if self._writer.busy:
            log.warning("checkpoint %d is left out: the one before is still being written", number)
            enter()
            return
        self._last, self._begun = self._server.clock(), number
        segment = self._segments[number] = 0 if self.journal is None else self.journal.rotate()
        enter()
        self._writer.begin(self._path(number), segment=segment)

    def close(self) -> None:
        """Called once at the end."""
        self._writer.wait()
        if self.journal is not None:
            self.journal.close()

    def _drop(self, number: int) -> None:
        """What was before a checkpoint is no longer needed."""
        self.folder.drop(number, self._segments[number])
        if self.journal is not None:
            self.journal.drop(self._segments[number])
        self._segments = {n: segment for n, segment in self._segments.items() if n >= number}
        self._base = number

    def _path(self, number: int) -> Path:
        return self.folder.path / name(number, CHECKPOINT)
