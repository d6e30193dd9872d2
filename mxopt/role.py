"""Turns a script that is started for every role of a job, as with MXNet, into the job's server or
scheduler.

`import mxopt` begins with this: where `DMLC_ROLE` is `server` or `scheduler`, `python -m
mxopt_server` takes the place of the process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mxopt import settings

# By which this interpreter takes no module of the current folder for the one that it is to run.
SAFE = ["-P"] if sys.version_info >= (3, 11) else []


def _is_command() -> bool:
    """Whether this process is the command `mxopt`, by that name or by `python -m mxopt`."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m" and "-m" in sys.orig_argv[:-1]:  # Python doesn't know yet which file it will run
        name = sys.orig_argv[sys.orig_argv.index("-m") + 1].partition(".")[0]
    return Path(name).stem == "mxopt"


def become() -> None:
    """Replaces this process by the server or the scheduler that its environment asks for, once: not
    in what mxopt's commands start, nor where the server's package is in use already."""
    if "mxopt_server" in sys.modules or _is_command() or not settings.becomes_role():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, *SAFE, "-m", "mxopt_server"]
    os.execve(sys.executable, command, {**os.environ, settings.BECOME_ROLE: "0"})


become()
