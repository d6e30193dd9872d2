"""The folder in which a job keeps what outlives its processes.

::

    job                    the job's facts, which do not change
    lock                   held by the launcher that runs the job
    scheduler/lock         held by the scheduler
    scheduler/EPOCH/       what it keeps
    server-RANK/EPOCH/     what a server keeps: segments of its journal, checkpoints, `sealed`

A process creates and renames only within a folder of its epoch, which nobody has had before, and
below it. One that is stopped while another takes its place therefore can't harm that when it wakes:
its successor has linked what it needs into a folder of its own, and has written down (`sealed`) how
long each segment was then. It then deletes the folders of the epochs before, in which nobody can
make a file any more; with their links each restart would keep another journal on the disk.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from mxopt.document import dump_document, write_file
from mxopt.errors import ArgumentError, StatesError
from mxopt.typing import Document, Plain
from mxopt_server.epoch_folder import NOTES, SEALED, content_in, epochs


def lock(root: Path) -> int:
    """Makes the folder, and holds it for this process until the file descriptor is closed. Raises
    ArgumentError where a process that lives has it."""
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
    """Writes down a new job's facts. Raises ArgumentError if the folder has another job's
    state."""
    if (root / "job").exists():
        raise ArgumentError(
            f"the state folder {root} has the state of a job: go on with it by --resume {root}, or give another folder"
        )
    try:
        write_file(root / "job", dump_document(dict(facts)))
    except OSError as error:
        raise ArgumentError(f"the state folder {root} can't be used: {error}") from None


def job_in(root: Path, facts: Document, job: str = "") -> str:
    """The name of the job with these facts whose state is in the folder; where none is, it is from
    now on that of `job`, or of a new one. Raises ArgumentError if it is that of another job, or one
    of the facts was another."""
    if (root / "job").exists():
        return str(resume(root, {**facts, "job": job} if job else facts)["job"])
    job = job or secrets.token_hex(8)
    begin(root, {**facts, "job": job})
    return job


def resume(root: Path, facts: Document, members: Iterable[str] = ()) -> Plain:
    """The facts of the job whose state is there. Raises ArgumentError if there is none, one of
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
