"""The command lines of mxopt's commands: what is wrong with one is said in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from mxopt import __version__
from mxopt.errors import ArgumentError
from mxopt.kvstore.address import checked_port, host_and_port

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Parser(argparse.ArgumentParser):
    """A command's parser: with `--version`, and errors without the list of all options."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, **more)
        self.add_argument("--version", action="version", version=f"{prog} {__version__}")

    def error(self, message: str) -> NoReturn:
        """Ends the process with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def add_keys(self) -> None:
        """The option by which a process is given the job's keys."""
        self.add_argument(
            "--keys",
            metavar="FILE",
            help="the job's keys, from `mxopt-server keygen`; -: from the standard input (MXOPT_KVSTORE_KEYS)",
        )

    def add_scheduler(self) -> None:
        """The option that says where the scheduler is."""
        self.add_argument(
            "--scheduler",
            type=address,
            metavar="HOST:PORT",
            help="where it is, or ipc://PATH (DMLC_PS_ROOT_URI and _PORT)",
        )


def _type(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """`check` as argparse wants a type, so that its own words are shown."""

    def checked(text: str) -> Any:
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


port = _type(lambda text: _port(text, 1))
any_port = _type(lambda text: _port(text, 0))


@_type
def count(text: str) -> int:
    """A number of processes or threads."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{text!r}: needs a whole number of 1 or more")
    return int(text)
