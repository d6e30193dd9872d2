"""Snapshots of a running server, written by a thread beside its loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mxopt.document import write_document
from mxopt.errors import MXOptError
from mxopt.typing import Plain
from mxopt_server import snapshot
from mxopt_server.moment import Moment
from mxopt_server.server import Server

log = logging.getLogger("mxopt.server")

END_S = 60.0  # how long the end waits for the disk


class SnapshotWriter:
    """Writes snapshots of `server`, one at a time, each in a `thread`. What is to be written and
    changes meanwhile is copied first, a piece at a time: the server never waits for the disk.

    Attributes
    ----------
    written : the last file that is there in full; None before
    """

    def __init__(self, server: Server, thread: Callable[..., Any] = threading.Thread) -> None:
        self._server, self._make_thread = server, thread
        self._thread: Any = None
        self.written: Path | None = None

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        if self._thread is not None and not self._thread.is_alive():
            self._ended()
        return self._thread is not None

    def begin(self, path: Path, **more: object) -> None:
        """Begins to write the server as it is now, with `more` entries, to `path`."""
        content, moment = snapshot.record(self._server) | more, snapshot.moment(self._server)
        self._server.applier.moment = moment
        self._thread = self._make_thread(
            target=self._write, args=(path, content, moment), name="mxopt-snapshot", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Waits for the one that is being written."""
        if self._thread is not None:
            self._thread.join(END_S)
            self._ended()

    def _ended(self) -> None:
        self._thread = self._server.applier.moment = None

    def _write(self, path: Path, content: Plain, moment: Moment) -> None:
        """Where this fails (a full disk) the last one stays, and the server goes on."""
        try:
            write_document(path, content, moment.read)
        except (OSError, MXOptError) as error:
            log.error("the snapshot %s couldn't be written, the last one stays: %s", path, error)
        else:
            self.written = path
