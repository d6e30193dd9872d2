"""What looks after a running server: its snapshots and its metrics."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mxopt_server.server import Server

log = logging.getLogger("mxopt.server")


class Attached:
    """Writes snapshots of `server` to `path` every `every` seconds and at its end, and serves metrics on a port."""

    def __init__(self, server: Server, path: Path | None, every: float, metrics_port: int | None) -> None:
        self.server, self.path, self.every = server, path, every
        self.last = time.monotonic()

    def tick(self) -> None:
        """Called often by the loop."""

    def close(self) -> None:
        """Called once at the end."""
