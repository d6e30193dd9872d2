"""A job's checkpoint that a script asks for: weights, states, update counts and rounds of all keys,
in one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mxopt.document import checksum_of, dump_document, load_document, write_file
from mxopt.errors import StatesError
from mxopt.kvstore.wire import Key
from mxopt.sparse import RowSparse
from mxopt.sparse.initial import Initial
from mxopt.typing import Plain, State

NAME = "checkpoint"  # of the file in the folder
KIND = "mxopt kvstore checkpoint"


@dataclass
class Checkpoint:
    """What a checkpoint holds: by key the weight, and how many rounds it has had; the optimizer's
    states, if it has any. The weight of a key that is stored by rows has the rows that exist; that
    of a table knows how the others begin. `checksum` is that of the file it was read from."""

    weights: dict[Key, np.ndarray | RowSparse]
    rounds: dict[Key, int]
    states: bytes | None
    checksum: bytes = b""


def write(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes a checkpoint to a folder, which is made if necessary. The old one stays until the new
    one is whole."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    content = {"kind": KIND, "weights": checkpoint.weights, "rounds": checkpoint.rounds, "states": checkpoint.states}
    write_file(Path(folder) / NAME, dump_document(content))


def read(folder: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a folder. Raises StatesError if it is damaged or something else, OSError if
    it can't be read."""
    path = Path(folder) / NAME
    document = path.read_bytes()
    found: Plain = load_document(document)
    weights: Any = found.get("weights")
    rounds: Any = found.get("rounds")
    states: State = found.get("states")
    fits = (
        found.get("kind") == KIND and isinstance(weights, dict) and isinstance(rounds, dict)
        and weights.keys() == rounds.keys() and isinstance(states, bytes | None)
        and all(isinstance(key, int | str) and _is_weight(key, value) for key, value in weights.items())
        and all(type(number) is int and number >= 0 for number in rounds.values())
    )  # fmt: skip
    if not fits:
        raise StatesError(f"{path} is no checkpoint of a store")
    return Checkpoint(weights, rounds, states, checksum_of(document))


def _is_weight(key: Key, value: object) -> bool:
    if not isinstance(value, RowSparse) or value.initial is None:
        return isinstance(value, np.ndarray | RowSparse)
    table = value.initial.table
    return value.initial == Initial(table, key) and (table.shape, table.dtype) == (value.shape, value.dtype)
