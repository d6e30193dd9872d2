"""The command lines of mxopt's commands. An error in one is reported in one line."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from mxopt import __version__
from mxopt.errors import ArgumentError
from mxopt.kvstore.address import checked_port, host_and_port

T = TypeVar("T")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MOST = 1 << 16  # processes of a role, or threads


def any_text(stream: TextIO) -> None:
    """Has what a terminal's encoding lacks written as Python escapes it, instead of an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def as_given(stream: TextIO) -> None:
    """Has the words of a command line, and paths, written as the bytes that they were given as,
    whatever a terminal's encoding lacks: they are to be pasted."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())


@contextlib.contextmanager
def for_a_reader() -> Iterator[None]:
    """What is printed in this context may be cut short by who reads it, as `head` does: that is no
    error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Parser(argparse.ArgumentParser):
    """A command's parser: with `--version`, and errors without the list of all options, which
    suggest what was meant. `commands` are what may stand in the place of options."""

    def __init__(self, prog: str, commands: Sequence[str] = (), **more: Any) -> None:
        super().__init__(prog, **more)
        self.commands = commands
        self.add_argument("--version", action="version", version=f"{prog} {__version__}")

    def error(self, message: str) -> NoReturn:
        """Raises ArgumentError, by which a command ends with code 2."""
        if message.endswith("expected one argument"):
            option = message.removeprefix("argument ").partition(":")[0].rpartition("/")[2]
            message += f"; one that begins with a dash is joined to it: {option}=-..."
        raise ArgumentError(f"{message}{self._meant(message)} (see {self.prog} --help)") from None

    def _meant(self, message: str) -> str:
        """The option or command that an unknown one is like."""
        _, _, given = message.partition("unrecognized arguments: ")
        known = [*self._option_string_actions, *self.commands]
        found = difflib.get_close_matches(given.split()[0].partition("=")[0], known, n=1) if given.split() else []
        return f": did you mean {found[0]}?" if found else ""

    def add_keys(self) -> None:
        """The option by which a process is given the job's keys."""
        self.add_argument(
            "--keys",
            metavar="FILE",
            help="the job's keys, from `mxopt-server keygen`; -: from the standard input (MXOPT_KVSTORE_KEYS)",
        )

    def add_metrics_host(self) -> None:
        """The option that says on which address metrics are served."""
        self.add_argument(
            "--metrics-host", default="127.0.0.1", metavar="HOST", help="serve metrics on this address, in the clear "
            "(%(default)s)",
        )  # fmt: skip

    def add_scheduler(self) -> None:
        """The option that says where the scheduler is."""
        self.add_argument(
            "--scheduler",
            type=address,
            metavar="HOST:PORT",
            help="where it is, or ipc://PATH (DMLC_PS_ROOT_URI and _PORT)",
        )


def _type(check: Callable[[str], T]) -> Callable[[str], T]:
    """`check` as argparse wants a type, so that its own words are shown."""

    def checked(text: str) -> T:
        try:
            return check(text)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


@_type
def address(text: str) -> tuple[str, int]:
    """A scheduler's HOST:PORT or ipc://PATH."""
    return host_and_port(text, "the address")


def _port(text: str, least: int) -> int:
    if not text.isdecimal():
        raise ArgumentError(f"{text!r} is no port's number")
    return checked_port(int(text), "the port", least)


@_type
def port_of_rank(text: str) -> Callable[[int], int]:
    """A port's number N, or N+RANK: as many more as the rank of whom it is for."""
    number, _, more = text.partition("+")
    least = _port(number, 1)
    if more == "RANK":
        return lambda rank: least + rank
    fixed = _port(more, 0) if more else 0
    return lambda rank: least + fixed


port = _type(lambda text: _port(text, 1))
any_port = _type(lambda text: _port(text, 0))


@_type
def folder(text: str) -> Path:
    """A folder's path."""
    if not text:
        raise ArgumentError("needs a folder")
    return Path(text)


@_type
def seconds(text: str) -> float:
    """A length of time, more than 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ArgumentError(f"{text!r}: needs seconds, more than 0")
    return found


def _count(text: str, least: int, most: float = math.inf) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        within = f"of {least} or more" if most == math.inf else f"from {least} to {most:.0f}"
        raise ArgumentError(f"{text!r}: needs a whole number {within}")
    return int(text)


count_or_none = _type(lambda text: _count(text, 0))


@_type
def count(text: str) -> int:
    """A number of processes or threads."""
    return _count(text, 1, MOST)


@_type
def rank(text: str) -> int:
    """A rank, or -1 for any."""
    return -1 if text == "-1" else _count(text, 0)
