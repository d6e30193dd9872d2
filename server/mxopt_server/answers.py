"""What a server says. An answer is a promise: it leaves when the records that it rests on last."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Frame, Key
from mxopt_server.applier import plain_error
from mxopt_server.machine import Machine

log = logging.getLogger("mxopt.server")

Send = Callable[[bytes, Message], object]  # (route, message)
Room = Callable[[bytes, int], Frame]  # (route, bytes)


class Answers:
    """The messages of server `rank`, whose state is `machine`. They leave by `post`; where the
    server has lost its `lease`, its place in the job, nothing does.

    Attributes
    ----------
    leaving : (route, message) of those that wait for the next `flush`
    gathers : whether they wait until all messages at hand have been handled, so that they share one
        sync of the disk
    room : called with a route and a number of bytes: memory for an answer's data
    sent, refusals : bytes of data, and how many refusals, so far
    """

    def __init__(self, post: Send, rank: int, machine: Machine, lease: Callable[[], bool], room: Room) -> None:
        self._post, self.rank, self._machine, self._lease, self.room = post, rank, machine, lease, room
        self.leaving: list[tuple[bytes, Message]] = []
        self.sent = self.refusals = 0

    @property
    def gathers(self) -> bool:
        journal = self._machine.journal
        return journal is not None and journal.together

    def send(self, route: bytes, message: Message) -> None:
        """Has a message sent at the next `flush`."""
        self.leaving.append((route, message))

    def flush(self) -> None:
        """Commits what was entered, and sends the answers that depend on it."""
        journal = self._machine.journal
        if journal is not None:
            progress = self._machine.applier.progress
            if journal.together:  # it waits for a disk
                progress.begin("a sync of the journal of server", self.rank)
            journal.commit()
            progress.end()
        if self._lease():
            leaving, self.leaving = self.leaving, []
            for route, message in leaving:
                self._post(route, message)

    def taken(self) -> None:
        """A message has been taken: its answers leave, unless they wait for others."""
        if not self.gathers:
            self.flush()

    def hasten(self) -> None:
        """A large answer waits: it leaves now where it may, and is read while the next are made."""
        if self._machine.journal is None:
            self.flush()

    def refused(self, who: str, seq: int, error: Exception, key: Key | None) -> m.Refused:
        """That a request can't be met, or where it has no number a message."""
        self.refusals += 1
        error = plain_error(error)
        log.warning("refused a request of %s: %s", who, str(error))
        text = str(error) if str(error).startswith("server") else f"server {self.rank}: {error}"
        key = key if type(key) in (int, str) else None
        return m.Refused(seq, type(error).__name__, text[: wire.MAX_TEXT], key)
