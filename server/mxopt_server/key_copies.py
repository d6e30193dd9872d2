"""A job's keys on other machines, brought there by ssh: a file that only its owner can read, while
the job runs."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mxopt_server.children import LaunchError
from mxopt_server.launchers import ssh_target

COPY_S = 60.0
REMOVE_S = 10.0


def path_on(host: int, job: str) -> str:
    """Where the keys are on the host with this number. (Two names may be of one machine.)"""
    return f"/tmp/mxopt-{job}-{host}.key"


def copy(host: str, path: str, user: str) -> list[str]:
    """The command that makes the file of what it reads from its standard input; one that is there
    is left alone, and so is a pipe that another user has put there to read it from."""
    file = shlex.quote(path)
    mine = f"test -f {file} && test -O {file}"  # the shell makes no file in the place of one, but opens a pipe
    return [*ssh_target(host, user), f"umask 077 && set -C && : > {file} && {mine} && cat >> {file}"]


def remove(host: str, path: str, user: str) -> list[str]:
    """The command that removes the file."""
    return [*ssh_target(host, user), f"rm -f {shlex.quote(path)}"]


@contextlib.contextmanager
def copied(keys: str, paths: Mapping[str, str], user: str) -> Iterator[None]:
    """Within this context the file `keys` is on all hosts too, at `paths` by their names. Raises
    LaunchError where it can't be brought there."""
    text = Path(keys).read_bytes() if paths else b""
    try:
        for host, (code, said) in zip(
            paths, _all([copy(h, p, user) for h, p in paths.items()], text, COPY_S), strict=True
        ):
            if code:
                raise LaunchError(f"the keys can't be copied to {host}: ssh ended with code {code}: {said}")
        yield
    finally:
        list(_all([remove(h, p, user) for h, p in paths.items()], b"", REMOVE_S))


def _all(commands: Sequence[Sequence[str]], text: bytes, seconds: float) -> Iterator[tuple[int, str]]:
    """Runs commands side by side, each fed with `text`. Yields their exit codes, and what they
    said."""
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        for command in commands
    ]
    for child in children:
        try:
            _, said = child.communicate(text, seconds)
            yield child.returncode, said.decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            yield 1, f"no answer within {seconds:g} s"
