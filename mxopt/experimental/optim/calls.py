"""Which parameters one list call of a rule updates, and the scalars it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mxopt.device import place_of
from mxopt.engine import Plan, Plans, Tensor, arrays
from mxopt.experimental.optim.groups import Options, ParameterGroup, Slot, Step
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse

if TYPE_CHECKING:
    from mxopt.experimental.optim.optimizer import Optimizer

PATTERNS = 8  # of parameters with a gradient: alternating between so many costs nothing extra


@dataclass(eq=False)
class _Batch:
    """Parameters that one list call can update: of one group, and of the same dtypes."""

    group: ParameterGroup
    positions: tuple[int, ...]
    slots: list[Slot]
    weights: list[Any]
    states: list[dict[str, Any]]


class ListCalls:
    """The list calls of an optimizer, each with a plan that is made once."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._plans = Plans(0)

    def take(self, members: list[list[Slot]]) -> None:
        """Updates these parameters, listed by group, from now on."""
        self._members = members
        self._slots = [slot for slots in members for slot in slots]
        self._batches: dict[tuple[bool, ...], list[_Batch]] = {}
        self._plans.limit = PATTERNS * len(members) + 2 * len(self._slots)

    def update(self, grads: list[Any]) -> None:
        """Updates what has a gradient. Raises ArrayError, and changes nothing, where one can't be updated."""
        try:
            updates = [(plan, batch.slots, *self._rows(batch)) for batch, plan in self._planned(grads)]
        except Exception:
            for slot in self._slots:  # states and master copies made for nothing would be out of date next time
                slot.arrays = slot.arrays if slot.step else {}
            raise
        for plan, slots, rows, which, carries in updates:
            plan.run(rows, which)
            for slot in slots:
                slot.step += 1
            if self._optimizer.carried:
                for slot, row in zip(slots, which, strict=True):
                    slot.carry = carries[row]

    def _planned(self, grads: list[Any]) -> list[tuple[_Batch, Plan]]:
        """The list calls that these gradients need. Where one can't be done, the error comes from here."""
        pattern = tuple([g is None for g in grads])
        batches = self._batches.get(pattern)
        if batches is not None:
            found = [self._find(batch, grads) for batch in batches]
            if None not in found:
                return list(zip(batches, found, strict=True))  # type: ignore[arg-type]
        batches = self._sorted(grads)
        plans = [self._find(batch, grads) or self._make(batch, grads) for batch in batches]
        while len(self._batches) >= PATTERNS:
            del self._batches[next(iter(self._batches))]
        self._batches[pattern] = batches
        return list(zip(batches, plans, strict=True))

    def _sorted(self, grads: list[Any]) -> list[_Batch]:
        """Parameters with a gradient, those together that one plan can keep: the same dtypes, memory without gaps."""
        batches, position = [], 0
        for group, slots in zip(self._optimizer.param_groups, self._members, strict=True):
            together: dict[Any, list[int]] = {}
            for slot in slots:
                w, g = slot.weight, grads[position]
                if g is not None:
                    plain = not isinstance(g, RowSparse) and arrays.is_plain(w) and arrays.is_plain(g)
                    key = (place_of(w), w.dtype, g.dtype) if plain else position
                    together.setdefault(key, []).append(position)
                position += 1
            for positions in together.values():
                members = [self._slots[i] for i in positions]
                weights, states = [s.weight for s in members], [s.arrays for s in members]
                batches.append(_Batch(group, tuple(positions), members, weights, states))
        return batches

    def _find(self, batch: _Batch, grads: list[Any]) -> Plan | None:
        group = batch.group
        mine = grads if len(batch.positions) == len(grads) else [grads[i] for i in batch.positions]
        lazy = group["lazy_update"] or self._optimizer.rests(group)
        return self._plans.find(batch.positions, self._optimizer.rule(group), lazy, batch.weights, mine, batch.states)

    def _make(self, batch: _Batch, grads: list[Any]) -> Plan:
        group = batch.group
        rule, tensors = self._optimizer.rule(group), []
        for slot, position in zip(batch.slots, batch.positions, strict=True):
            states, master = self._states(slot, rule, group)
            tensors.append(Tensor(slot.place, slot.weight, grads[position], states, master))
        batch.states = [slot.arrays for slot in batch.slots]
        lazy = group["lazy_update"] or self._optimizer.rests(group)
        return self._plans.make(batch.positions, rule, lazy, tensors, batch.states)

    def _states(self, slot: Slot, rule: Rule, group: Options) -> tuple[tuple[Any, ...], Any]:
        """The arrays of a rule's states, and the master copy where there is one, made if they aren't there yet."""
        if slot.step == 0:
            slot.arrays = {}
        kept, source = slot.arrays, slot.weight
        if self._optimizer.uses_master(slot.weight):
            if "master" not in kept:
                kept["master"] = slot.weight.astype(np.float32)
            source = kept["master"]
        for name in rule.states:
            if name not in kept:
                kept[name] = self._optimizer.new_state(name, source, group)
        return tuple(kept[name] for name in rule.states), kept.get("master")

    def _rows(self, batch: _Batch) -> tuple[list[tuple[float, ...]], list[int], list[float]]:
        """The distinct rows of hyper-parameters, for each parameter which row is its own, and what each hands on."""
        real = np.float64 if batch.weights[0].dtype.itemsize == 8 else np.float32
        slots = batch.slots
        kinds, which = distinct(
            [
                [slot.step for slot in slots],
                [slot.carry for slot in slots],
                [slot.parameter.lr_mult for slot in slots],
                [slot.parameter.wd_mult for slot in slots],
            ]
        )
        found = [hypers(self._optimizer, batch.group, real, *kind) for kind in kinds]
        return [row for row, _ in found], which, [carry for _, carry in found]


def hypers(
    optimizer: Optimizer,
    group: Options,
    real: type[np.floating[Any]],
    step: int,
    carry: float,
    lr_mult: float,
    wd_mult: float,
) -> tuple[tuple[float, ...], float]:
    """The hyper-parameters of the update after `step` others, and the number that it hands on."""
    at = Step(group, group["lr"] * lr_mult, group.get("weight_decay", 0.0) * wd_mult, step + 1, carry, real)
    lr, wd, *own = optimizer.scalars(at)
    scale = -optimizer.rescale_grad if group["maximize"] else optimizer.rescale_grad
    return (lr, wd, scale, math.inf, *own), optimizer.hand_on(at)


def distinct(columns: Sequence[list[Any]]) -> tuple[list[Any], list[int]]:
    """The distinct rows of a table, and for each row which of them it is."""
    if all(column.count(column[0]) == len(column) for column in columns):  # nearly always, and three times as fast
        return [tuple(column[0] for column in columns)], [0] * len(columns[0])
    rows = list(zip(*columns, strict=True))
    number = {row: k for k, row in enumerate(dict.fromkeys(rows))}
    return list(number), [number[row] for row in rows]
