"""`mxopt-server keygen`: the key pair that all processes of a job share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import zmq

from mxopt.errors import ArgumentError
from mxopt_server.arguments import Parser

TEXT = """\
#   The keys of one mxopt job. Whoever has this file can read and change everything in the job.
metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""


def main(arguments: Sequence[str]) -> int:
    """Writes a new key file that only its owner can read."""
    parser = Parser("mxopt-server keygen", description=main.__doc__)
    parser.add_argument("file", type=Path, help="where to write; must not exist")
    options = parser.parse_args(arguments)
    public, secret = zmq.curve_keypair()
    try:
        handle = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ArgumentError(f"{options.file} is there already, and keys are never overwritten") from None
    except OSError as error:
        raise ArgumentError(f"can't write {options.file}: {error}") from error
    with os.fdopen(handle, "w") as file:
        file.write(TEXT.format(public=public.decode(), secret=secret.decode()))
    print(f"wrote {options.file}; give it to every process of the job: MXOPT_KVSTORE_KEYS={options.file}")
    return 0
