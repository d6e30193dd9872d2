"""An experimental optimizer that steps by itself, as a `Trainer` needs it: by position, with its states as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mxopt.errors import StatesError
from mxopt.experimental.optim.groups import Slot
from mxopt.experimental.optim.keyed import KeyedOptimizer
from mxopt.experimental.optim.saving import parameters
from mxopt.optimizer.base import Index
from mxopt.optimizer.states import Described, Loaded, dump, fit


class DirectUpdater:
    """What `Updater` is, for the optimizer that `optimizer` follows, which updates its own parameters and states.

    The bytes of the states are those of an `Updater` of `optimizer`, so that they can go on in a store, and the other
    way round.
    """

    def __init__(self, optimizer: KeyedOptimizer) -> None:
        self.optimizer = optimizer
        self._slots: list[Slot] = [slot for members in optimizer.model._members for slot in members]

    def __call__(self, indices: Sequence[int], grads: Sequence[Any], weights: Sequence[Any]) -> None:
        """Updates the parameters at these positions by their gradients."""
        given: list[Any] = [None] * len(self._slots)
        for index, grad in zip(indices, grads, strict=True):
            given[index] = grad
        self.optimizer.model(tuple(given))

    def refresh(self, index: int, weight: Any) -> None:
        """Lets a 16-bit weight's master copy, if there is one, follow a change of the weight from outside."""
        master = self._slots[index].arrays.get("master")
        if master is not None:
            master[...] = weight

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """All states, with their update counts, and the options if asked for."""
        saved = self.optimizer.model.state_dict()["state"]
        found: dict[Index, Any] = {}
        for index, slot in enumerate(self._slots):
            if slot.step:
                kept = saved[slot.name]
                names = self.optimizer.state_names(index, slot.weight)
                found[index] = tuple(np.array(kept[n]) if type(kept[n]) is float else kept[n] for n in names)
        counts = {index: slot.step for index, slot in enumerate(self._slots) if slot.step}
        self.optimizer.set_counts({"num_update": max(counts.values(), default=0), "devices": {0: counts}})
        return dump(found, self.optimizer, {}, dump_optimizer)

    def take(self, loaded: Loaded, known: Mapping[Index, Described]) -> None:
        """Takes over what `get_states` returned.

        Raises StatesError where the states are of another optimizer or of other parameters; nothing has changed then.
        """
        loaded, saved = fit(loaded, self.optimizer, known)
        made: Any = self.optimizer if saved is None else saved
        counts = loaded.counts["devices"].get(0, {})
        found = {}
        for index, state in loaded.states.items():
            if not isinstance(index, int) or index not in range(len(self._slots)):
                raise StatesError(f"there is a state for {index!r}, which is no parameter")
            slot = self._slots[index]
            names = made.state_names(index, slot.weight)
            if not isinstance(state, tuple | list) or len(state) != len(names):
                raise StatesError(f"{slot.place} needs the states {', '.join(names)}; there are {len(state)}")
            kept = dict(zip(names, state, strict=True))
            carried = self.optimizer.model.carried
            if carried:
                kept[carried] = float(kept[carried])
            found[slot.name] = {"step": counts.get(index), **kept}
        document = {"optimizer": made.kind, "parameters": parameters([self._slots]), "param_groups": made.groups}
        self.optimizer.model.load_state_dict({**document, "state": found})
        self.optimizer.rescale_grad = made.rescale_grad
