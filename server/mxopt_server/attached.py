"""A server's snapshots in one file, from which this server alone can continue."""

from __future__ import annotations

from pathlib import Path

from mxopt_server import snapshot
from mxopt_server.server import Server
from mxopt_server.snapshot_writer import SnapshotWriter


class Attached:
    """Writes snapshots of `server` to `path`, in which RANK stands for its rank, every `every`
    seconds and at its end; to nowhere for None. What is there is taken first."""

    def __init__(self, server: Server, path: Path | None, every: float) -> None:
        self.server, self.every = server, every
        self.path = path and path.with_name(path.name.replace("RANK", str(server.rank)))
        self.last = server.clock()
        self.seen = -1  # messages at the last snapshot
        self.writer = SnapshotWriter(server)
        if self.path is not None:
            snapshot.restore(server, self.path)

    def tick(self, exists: int = 0) -> None:
        """Called often by the loop: begins a snapshot when it is time and something has changed."""
        if self.path is None or self.writer.busy:
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
        assert self.path is not None
        self.seen, self.last = self.server.messages, self.server.clock()
        self.writer.begin(self.path)

    def wait(self) -> None:
        """Waits for the snapshot that is being written."""
        self.writer.wait()
