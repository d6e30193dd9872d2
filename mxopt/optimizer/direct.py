"""Lets a `Trainer` step an optimizer of groups: by position, with its states as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import StatesError
from mxopt.optimizer.base import Index
from mxopt.optimizer.keyed import KeyedOptimizer
from mxopt.optimizer.states import Described, Loaded, dump, fit
from mxopt.typing import Array, State


class DirectUpdater:
    """The `Updater` of an optimizer of groups, which updates its own parameters and states;
    `optimizer` follows it.

    Its saved states are those of an `Updater` of `optimizer`, so a store can load them, and the
    other way round.
    """

    def __init__(self, optimizer: KeyedOptimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, indices: Sequence[int], grads: Sequence[Array], weights: Sequence[Array]) -> None:
        """Updates the parameters at these positions by their gradients."""
        given: list[Array] = [None] * len(self.optimizer.model.slots)
        for index, grad in zip(indices, grads, strict=True):
            given[index] = grad
        self.optimizer.model(tuple(given))

    def refresh(self, index: int, weight: Array) -> None:
        """Copies a 16-bit weight that was changed from outside to its master copy, if it has
        one."""
        slot, of = self.optimizer.model.slots[index], self.optimizer.of
        if of.model.uses_master(weight) and of.count(slot):
            _, master = self.optimizer.split(of.state(slot))
            master[...] = weight

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """All states, with their update counts, and the options if asked for."""
        of, slots = self.optimizer.of, self.optimizer.model.slots
        counts = {index: of.count(slot) for index, slot in enumerate(slots) if of.count(slot)}
        found: dict[Index, State] = {index: of.state(slots[index]) for index in counts}
        self.optimizer.set_counts({"num_update": max(counts.values(), default=0), "devices": {0: counts}})
        return dump(found, self.optimizer, {}, dump_optimizer)

    def take(self, loaded: Loaded, known: Mapping[Index, Described]) -> None:
        """Loads what `get_states` returned.

        Raises StatesError, and changes nothing, if the states are of another optimizer or of other
        parameters.
        """
        loaded, saved = fit(loaded, self.optimizer, known)
        made: Any = self.optimizer if saved is None else saved
        slots = self.optimizer.model.slots
        found = {}
        for index, state in loaded.states.items():
            if not isinstance(index, int) or index not in range(len(slots)):
                raise StatesError(f"there is a state for {index!r}, which is no parameter")
            names = made.state_names(index, slots[index].weight)
            if not isinstance(state, tuple | list) or len(state) != len(names):
                raise StatesError(
                    f"parameter {slots[index].name!r} needs the states {', '.join(names)}; there are {len(state)}"
                )
            kept = dict(zip(names, state, strict=True))
            carried = self.optimizer.model.carried
            if carried:
                kept[carried] = float(kept[carried])
            found[index] = loaded.key_counts.get(index, 0), kept
        document = {**self.optimizer.of.document(made.groups, found), "seed": made.seed or 0}

        def go_on() -> None:
            self.optimizer.model.load_state_dict(document)
            self.optimizer.rescale_grad = made.rescale_grad

        uninterrupted(go_on)
