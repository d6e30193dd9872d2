"""Records at which a server has failed by itself, so that one that does so twice isn't tried for
ever.

What a process leaves for its successor is in two files of its epoch's folder. In `applying` is
which record it had begun to apply: the file is mapped into memory, where each record is noted for
next to nothing, and outlives the process. In `failure` is what Python's faulthandler says of a
crash (SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL); a process that is killed from outside says
nothing. `failures` has what all epochs so far have left.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import struct
from pathlib import Path

from mxopt.document import dump_document, write_file
from mxopt_server.epoch_folder import content_in

APPLYING, FAILURE, FAILURES = "applying", "failure", "failures"
PLACE = struct.Struct("<QQ")
TWICE = 2  # so often a server fails at a record before the job ends
ASIDE = 0  # instead, for one that a job which was taken up again leaves out

RecordPlace = tuple[int, int]  # of a record: the number of its segment, and where in that it ends


class Applying:
    """Records on disk which record the process of `folder` is applying."""

    def __init__(self, folder: Path) -> None:
        with open(folder / APPLYING, "x+b") as file:
            file.write(bytes(PLACE.size))
            file.flush()
            self._noted = mmap.mmap(file.fileno(), PLACE.size)

    def begin(self, place: RecordPlace) -> None:
        """Notes that it begins this one."""
        PLACE.pack_into(self._noted, 0, *place)

    def end(self) -> None:
        """Notes that it has applied the record."""
        PLACE.pack_into(self._noted, 0, 0, 0)

    def close(self) -> None:
        """Leaves the file as it is."""
        self._noted.close()


def tell_crashes(folder: Path) -> None:
    """Makes this process write how it crashes into its `folder`, if it does."""
    faulthandler.enable(open(folder / FAILURE, "xb", buffering=0), all_threads=False)  # noqa: SIM115 for ever


def left_by(folder: Path) -> dict[RecordPlace, tuple[int, str]]:
    """By record: how often servers have failed at it up to the epoch of `folder`, and how the last
    time."""
    found: dict[RecordPlace, tuple[int, str]] = {}
    with contextlib.suppress(FileNotFoundError, struct.error):  # where it has ended before it applied any
        known = content_in(folder / FAILURES, "failures")["failures"]
        found = {(segment, end): (times, how) for segment, end, times, how in known}
        how = (folder / FAILURE).read_text(errors="replace").partition("\n")[0]
        place = PLACE.unpack((folder / APPLYING).read_bytes())
        if how and any(place):
            found[place] = (found.get(place, (0, ""))[0] + 1, how)
    return found


def write(folder: Path, failures: dict[RecordPlace, tuple[int, str]]) -> None:
    """Writes what `left_by` found for the epoch before into the folder of the next."""
    content = [[*place, *about] for place, about in failures.items()]
    write_file(folder / FAILURES, dump_document({"failures": content}))
