"""Documents in files that a job keeps."""

from __future__ import annotations

from pathlib import Path

from mxopt.document import load_document
from mxopt.errors import StatesError
from mxopt.typing import Plain


def content_in(path: Path, *entries: str) -> Plain:
    """The content of the document in a file, which has these entries. Raises StatesError, which
    names the file, where it hasn't."""
    try:
        found = load_document(path.read_bytes())
    except StatesError as error:
        raise StatesError(f"{path}: {error}") from error
    for entry in entries:
        if entry not in found:
            raise StatesError(f"{path} is another document: it has no {entry!r}")
    return found
