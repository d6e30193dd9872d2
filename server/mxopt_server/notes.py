"""A few plain values that a process keeps across restarts."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from mxopt.document import dump_document, write_file
from mxopt_server.epoch_folder import NOTES, Folder, content_in, epochs


class Notes(UserDict[Any, Any]):
    """A few plain values that the process of `home` keeps: those of its epoch before, to begin
    with. Each change is on the disk before it returns."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        before = epochs(home)
        path = next((path / NOTES for path in before if (path / NOTES).exists()), None)
        if path is not None:
            self.data = content_in(path)
        self._path = Folder(home, 1 + max((int(path.name) for path in before), default=0)).path / NOTES
        write_file(self._path, dump_document(self.data))

    def __setitem__(self, name: Hashable, value: object) -> None:
        if name not in self.data or self.data[name] != value:
            write_file(self._path, dump_document(dict(self.data) | {name: value}))
            super().__setitem__(name, value)
