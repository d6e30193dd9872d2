"""The disk of a simulated server: the records of its journal, which outlive it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
from mxopt_server.machine import Machine
from mxopt_server.records import Record, Update

from mxopt.errors import MXOptError


class Died(BaseException):
    """Ends a server in the middle of what it does."""


class Disk:
    """A journal in memory.

    `crash` says when the server dies, once: (with which of its records, "before" it is kept, "after" that, or before
    the "answer" leaves).
    """

    together = False

    def __init__(self, crash: tuple[int, str] | None = None) -> None:
        self.records: list[Record] = []
        self.crash = crash

    def sealed(self) -> Disk:
        """The same for a successor."""
        made = Disk(self.crash)
        made.records = list(self.records)
        return made

    def append(self, record: Record) -> None:
        self._die("before")
        if isinstance(record, Update) and isinstance(record.value, np.ndarray):
            record = replace(record, value=record.value.copy())
        self.records.append(record)
        self._die("after")

    def commit(self) -> None:
        self._die("answer")

    def replay(self, machine: Machine) -> None:
        """Gives a fresh server the state of the one before."""
        for record in self.records:
            with contextlib.suppress(MXOptError):  # as the first time
                machine.apply(record)

    def _die(self, moment: str) -> None:
        if self.crash is not None and self.crash[1] == moment and len(self.records) >= self.crash[0]:
            self.crash = None
            raise Died
