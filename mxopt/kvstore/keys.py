"""A job's keys: one pair for all its processes, by which they know each other and encrypt what they
say (CurveZMQ)."""

from __future__ import annotations

import functools
import os
import re
import socket
import stat
import sys
from pathlib import Path

import zmq

from mxopt.errors import ArgumentError

KeyPair = tuple[bytes, bytes]  # public, secret, in Z85

STDIN = "-"


def load_keys(path: str) -> KeyPair | None:
    """The job's key pair from a file of `mxopt-server keygen`, or from the standard input for `-`;
    None if no file is named.

    Raises ArgumentError if there are no keys, or others can read the file too.
    """
    if not path:
        return None
    text = _input() if path == STDIN else _content(Path(path))
    found = [
        re.search(rf'^\s*{name}-key\s*=\s*"([!-~]{{40}})"\s*$', text, re.MULTILINE) for name in ("public", "secret")
    ]
    keys = [match[1].encode() for match in found if match]
    try:
        fits = len(keys) == 2 and zmq.curve_public(keys[1]) == keys[0]
    except (zmq.ZMQError, ValueError):
        fits = False
    if not fits:
        raise ArgumentError(
            f"{'the standard input' if path == STDIN else path} has no keys: `mxopt-server keygen` makes some"
        )
    return keys[0], keys[1]


@functools.cache
def _input() -> str:
    return sys.stdin.read(1 << 16)


def _content(file: Path) -> str:
    if not file.is_file():
        raise ArgumentError(
            f"there is no key file {file} on {socket.gethostname()}: make one with `mxopt-server keygen`, or bring the"
            " job's to this machine, where only you can read it"
        )
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ArgumentError(f"the key file {file} can be read by others: chmod 600 {file}")
    try:
        with file.open(errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError as error:
        raise ArgumentError(f"the key file {file} can't be read: {error}") from None
