"""What looks after a running server: its snapshots and its metrics."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mxopt.errors import MXOptError, StatesError
from mxopt_server import snapshot
from mxopt_server.server import Server

log = logging.getLogger("mxopt.server")


class Attached:
    """Writes snapshots of `server` to `path`, in which RANK stands for its rank, every `every` seconds and at its end;
    serves metrics on a port."""

    def __init__(self, server: Server, path: Path | None, every: float, metrics_port: int | None) -> None:
        self.server, self.every = server, every
        self.path = path and path.with_name(path.name.replace("RANK", str(server.rank)))
        self.last = time.monotonic()
        self.seen = -1  # messages at the last snapshot
        if self.path is not None:
            try:
                snapshot.restore(server, self.path)
            except StatesError as error:
                raise StatesError(f"the snapshot {self.path} can't be taken: {error}") from error
        if metrics_port is not None:
            from mxopt_server.metrics import serve

            serve(server, metrics_port)

    def tick(self) -> None:
        """Called often by the loop: writes a snapshot when it is time and something has changed."""
        if self.path is not None and time.monotonic() - self.last >= self.every and self.server.messages != self.seen:
            self.save()

    def close(self) -> None:
        """Called once at the end: writes the last snapshot."""
        if self.path is not None:
            self.save()

    def save(self) -> None:
        """Writes a snapshot; where that fails (a full disk) the old one stays, and the server goes on."""
        assert self.path is not None
        self.seen, self.last = self.server.messages, time.monotonic()
        try:
            snapshot.save(self.server, self.path)
        except (OSError, MXOptError) as error:
            log.error("the snapshot %s couldn't be written, the last one stays: %s", self.path, error)
