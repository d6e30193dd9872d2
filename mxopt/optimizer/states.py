"""An updater's states as a document: the states, the update counts, and the optimizer where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.optimizer.base import Index, Optimizer
from mxopt.optimizer.config import make_optimizer, optimizer_config


@dataclass
class Loaded:
    """What `load` read."""

    states: dict[Index, Any]
    counts: dict[str, Any]
    config: dict[str, Any] | None

    @property
    def key_counts(self) -> dict[Index, int]:
        """The update count of each index."""
        counts: dict[Index, int] = self.counts.get("devices", {}).get(0, {})
        return counts

    def make_optimizer(self) -> Optimizer | None:
        """The optimizer, where one was saved."""
        return None if self.config is None else make_optimizer(self.config)

    def restore_counts(self, optimizer: Optimizer) -> None:
        """Makes `optimizer` count on from where the saved one was."""
        optimizer.set_counts(self.counts)


def dump(states: dict[Index, Any], optimizer: Optimizer, dump_optimizer: bool) -> bytes:
    """The states of an updater, with the update counts, and the optimizer if asked for."""
    content = {
        "states": states,
        "counts": optimizer.get_counts(),
        "optimizer": optimizer_config(optimizer) if dump_optimizer else None,
    }
    return dump_document(content)


def load(document: bytes) -> Loaded:
    """Reads what `dump` wrote. Raises StatesError where it is anything else."""
    content = load_document(document)
    if content.keys() != {"states", "counts", "optimizer"} or not isinstance(content["states"], dict):
        raise StatesError(f"this is no document of an updater's states; it holds {', '.join(map(str, content))}")
    return Loaded(content["states"], content["counts"], content["optimizer"])
