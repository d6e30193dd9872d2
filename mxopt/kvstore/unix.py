"""Unix sockets. The kernel guards them by their folder, which only its owner may enter: nobody else
on the machine can connect to one, listen in its place, or read what passes through.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from mxopt.errors import ArgumentError, counted

SCHEME = "ipc://"
JOB = "mxopt-job-"  # how the names of folders begin that are one job's, and go with its last socket
LONGEST = 99  # bytes of a path: systems have room for 104 to 108, and libzmq takes some


def is_unix(endpoint: str) -> bool:
    """Whether an endpoint is `ipc://PATH`."""
    return endpoint.startswith(SCHEME)


def path_of(endpoint: str) -> Path:
    """The path of `ipc://PATH`. Raises ArgumentError if there can be no such socket."""
    path = endpoint.removeprefix(SCHEME)
    if not path.startswith("/"):
        raise ArgumentError(f"{endpoint!r}: needs ipc:// and an absolute path, which has an owner")
    if len(os.fsencode(path)) > LONGEST:
        raise ArgumentError(f"{endpoint!r}: the path of a Unix socket has at most {counted(LONGEST, 'byte')}")
    return Path(path)


def check(endpoint: str, own: bool = False) -> None:
    """Raises ArgumentError if the folder of a socket isn't this user's alone. One that doesn't
    exist is nobody's. Root may take part in another user's job where it was told to; with `own` a
    folder has to be root's too: its owner could listen in another's place."""
    folder = path_of(endpoint).parent
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArgumentError(f"the folder of {endpoint} can't be entered: {error}") from None
    mine = found.st_uid == os.geteuid() or (os.geteuid() == 0 and not own)
    if not stat.S_ISDIR(found.st_mode) or not mine or stat.S_IMODE(found.st_mode) & 0o077:
        raise ArgumentError(
            f"{endpoint}: {folder} must be a folder of this user's that nobody else may enter (chmod 700 {folder})"
        )


def make_folder(endpoint: str) -> None:
    """Makes the folder of a socket where there is none. Raises ArgumentError if it can't be
    made, or others may enter it."""
    folder = path_of(endpoint).parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"the folder of {endpoint} can't be made: {error}") from None
    check(endpoint, own=True)


def job_folder() -> Path:
    """A path for the folder of one job's sockets; there is nothing there yet."""
    return _temporary(JOB + secrets.token_hex(8))


def user_folder() -> Path:
    """The folder for sockets of this user's processes that were started by hand."""
    return _temporary(f"mxopt-{os.geteuid()}")


def _temporary(name: str) -> Path:
    folder = Path(tempfile.gettempdir(), name)
    return folder if len(os.fsencode(folder)) + len("/scheduler-4194304") <= LONGEST else Path("/tmp", name)


def choose(endpoint: str) -> str:
    """Of `ipc://PATH tcp://HOST:PORT` the Unix socket where this process may open it, else the
    other; any other endpoint is the only choice."""
    local, both, address = endpoint.partition(" tcp://")
    if not both:
        return endpoint
    try:
        check(local, own=True)
        here = os.access(path_of(local), os.W_OK)
    except ArgumentError:
        here = False
    return local if here else f"tcp://{address}"
