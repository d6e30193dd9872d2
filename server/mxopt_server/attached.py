"""What looks after a running server: its snapshots."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from mxopt.document import write_document
from mxopt.errors import MXOptError, StatesError
from mxopt_server import snapshot
from mxopt_server.moment import Moment
from mxopt_server.server import Server

log = logging.getLogger("mxopt.server")

END_S = 60.0  # how long the end waits for the disk


class Attached:
    """Writes snapshots of `server` to `path`, in which RANK stands for its rank, every `every` seconds and at its end.

    A thread writes. What is to be written and changes meanwhile is copied first, a piece at a time: the server never
    waits for the disk.
    """

    def __init__(self, server: Server, path: Path | None, every: float) -> None:
        self.server, self.every = server, every
        self.path = path and path.with_name(path.name.replace("RANK", str(server.rank)))
        self.last = server.clock()
        self.seen = -1  # messages at the last snapshot
        self.writer: threading.Thread | None = None
        if self.path is not None:
            try:
                snapshot.restore(server, self.path)
            except StatesError as error:
                raise StatesError(f"the snapshot {self.path} can't be taken: {error}") from error

    def tick(self) -> None:
        """Called often by the loop: begins a snapshot when it is time and something has changed."""
        if self.writer is not None and not self.writer.is_alive():
            self._ended()
        if self.path is None or self.writer is not None:
            return
        if self.server.clock() - self.last >= self.every and self.server.messages != self.seen:
            self.save()

    def close(self) -> None:
        """Called once at the end: writes the last snapshot."""
        if self.path is None:
            return
        self.wait()
        self.save()
        self.wait()

    def save(self) -> None:
        """Begins a snapshot."""
        self.seen, self.last = self.server.messages, self.server.clock()
        content, moment = snapshot.record(self.server), snapshot.moment(self.server)
        self.server.applier.moment = moment
        self.writer = threading.Thread(target=self._write, args=(content, moment), name="mxopt-snapshot", daemon=True)
        self.writer.start()

    def wait(self) -> None:
        """Waits for the snapshot that is being written."""
        if self.writer is not None:
            self.writer.join(END_S)
            self._ended()

    def _ended(self) -> None:
        self.writer = self.server.applier.moment = None

    def _write(self, content: dict[str, object], moment: Moment) -> None:
        """Writes a snapshot; where that fails (a full disk) the old one stays, and the server goes on."""
        assert self.path is not None
        try:
            write_document(self.path, content, moment.read)
        except (OSError, MXOptError) as error:
            log.error("the snapshot %s couldn't be written, the last one stays: %s", self.path, error)
