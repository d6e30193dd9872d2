"""Plans: an update of certain tensors by a rule, prepared once and run at each step.

A plan sorts its tensors into parts by what they need: plain arrays of the same dtypes and device
share one part, and any other tensor has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mxopt.engine import aliases, arrays, binding
from mxopt.engine.copies import CopiesPart
from mxopt.engine.kernel import PIECE
from mxopt.engine.native import Compiled, NativePart, PassesPart
from mxopt.engine.reference import ReferencePart
from mxopt.engine.rows import (
    LazyLayerwisePart,
    MatricesPart,
    RowsPart,
    ScatteredPart,
    ScatteredPassesPart,
    SparsePart,
)
from mxopt.engine.staged import StagedPart
from mxopt.engine.stored import StoredPart
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule, by_element
from mxopt.sparse import RowSparse
from mxopt.typing import Hypers

if TYPE_CHECKING:
    import numpy as np


class PlanPart(Protocol):
    """Tensors of a plan that are updated together.

    - `bind` (`bind_one` for a single tensor) takes the arrays of a step. It returns False if they
      aren't like those that the part was made for, or if a gradient lies in the memory that
      `forbid` names, as ascending spans of addresses. A part that isn't `lasting` never takes them.
    - `prepare` (`prepare_one`) takes the hyper-parameters, `hypers[which[t]]` for tensor t, and
      allocates what the update needs. It returns a function of C that makes the update in one call,
      with the argument `address`, or None. A `direct` part never returns None.
    - `finish` makes the update if there is no such function.
    """

    lasting: bool
    direct: bool
    address: int

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool: ...
    def bind_one(self, weight: object, grad: object) -> bool: ...
    def forbid(self, taken: np.ndarray) -> None: ...
    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> Compiled | None: ...
    def prepare_one(self, hypers: Hypers) -> Compiled | None: ...
    def finish(self) -> None: ...


class Plan:
    """An update of `tensors` by `rule`, by the engine called `engine`. `doubles` are the positions
    of float64 weights.

    `lazy`: leave alone the rows that a row-sparse gradient lacks, if the rule allows it. Raises
    ArrayError if the arrays can't be updated.
    """

    bind_one: Callable[[object, object], bool]

    def __init__(self, engine: str, rule: Rule, tensors: Sequence[Tensor], lazy: bool) -> None:
        for tensor in tensors:
            tensor.check(rule)
        self.rule = rule
        self.engine = engine
        self.lazy = lazy
        self.doubles: list[int] = [k for k, tensor in enumerate(tensors) if tensor.weight.dtype.itemsize == 8]
        taken = aliases.taken_by(tensors)
        aliases.check(tensors, taken)
        self.parts: list[tuple[list[int], PlanPart]] = self._parts(tensors)
        self.forbid(taken)
        # Whether the plan can serve again. Then it keeps no weight and no gradient alive.
        self.lasting: bool = binding.can_read_arrays() and all(part.lasting for _, part in self.parts)
        # Plans of a single tensor call their part directly: this is on the path of every update.
        self.single: bool = len(tensors) == 1
        self.bind_one = self.parts[0][1].bind_one if self.single and self.lasting else _never
        self.part: PlanPart = self.parts[0][1]

    def forbid(self, taken: np.ndarray) -> None:
        """Refuses gradients that lie in the memory `taken`, ascending spans of addresses."""
        for _, part in self.parts:
            if part.lasting:
                part.forbid(taken)

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        """Binds the plan to these arrays; False if it can't be run with them. Gradients may be
        given by address, as to `NativePart.bind_at`."""
        if type(grads[0]) is int:
            one = len(self.parts) == 1
            return self.lasting and all(
                isinstance(part, NativePart) and part.bind_at(grads if one else [grads[p] for p in mine])  # type: ignore[arg-type,misc]
                for mine, part in self.parts
            )
        if self.single:
            return self.bind_one(weights[0], grads[0])
        if not self.lasting or len(self.parts) == 1:
            return self.lasting and self.parts[0][1].bind(weights, grads)
        return all(part.bind([weights[p] for p in mine], [grads[p] for p in mine]) for mine, part in self.parts)

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> list[Iterable[object] | None]:
        """Takes the hyper-parameters, `hypers[which[t]]` for tensor t. Returns for each part an
        iterator that calls the function of C which updates it, or None if `finish` does."""
        if self.single:
            one = self.part.prepare_one(hypers[which[0]])
            return [None if one is None else map(one, (self.part.address,))]
        found: list[Iterable[object] | None] = []
        for positions, part in self.parts:
            if len(self.parts) == 1:
                call = part.prepare(hypers, which)
            else:
                mine = list(dict.fromkeys(which[p] for p in positions))
                call = part.prepare([hypers[r] for r in mine], [mine.index(which[p]) for p in positions])
            found.append(None if call is None else map(call, (part.address,)))
        return found

    def finish(self) -> None:
        """Makes the prepared update, in any number of calls."""
        for _, part in self.parts:
            part.finish()

    def _parts(self, tensors: Sequence[Tensor]) -> list[tuple[list[int], PlanPart]]:
        groups: dict[Any, tuple[Any, list[tuple[int, Tensor]]]] = {}
        apart = aliases.apart(tensors)
        for position, tensor in enumerate(tensors):
            rule, tensor = self._seen_as(tensor)
            make = self._needs(rule, tensor)
            together = apart and getattr(make, "lists", False)
            kind = tensor.dtypes, tensor.rounding is None
            group = (make, rule, arrays.place_of(tensor.weight), kind) if together else position
            groups.setdefault(group, (partial(make, rule), []))[1].append((position, tensor))
        return [([p for p, _ in its], make([tensor for _, tensor in its])) for make, its in groups.values()]

    def _seen_as(self, tensor: Tensor) -> tuple[Rule, Tensor]:
        """The rule and the states for a tensor. Where rows or columns have states, but only one
        element, it is the element-wise form of the rule."""
        rule, weight = self.rule, tensor.weight
        if rule.by_matrix is not None and weight.shape[-2:] == (1, 1) and not isinstance(weight, RowSparse):
            return by_element(rule, True), tensor
        if rule.by_matrix is not None and weight.ndim < 2:
            own = by_element(rule)
            states = dict(zip(rule.states, tensor.states, strict=True))
            return own, replace(tensor, states=tuple(states[name] for name in own.states))
        dense = not isinstance(weight, RowSparse) and not isinstance(tensor.grad, RowSparse)
        if rule.by_row is not None and dense and weight.size == len(weight) > 0 and tensor.plain:
            return by_element(rule), tensor
        return rule, tensor

    def _needs(self, rule: Rule, tensor: Tensor) -> Any:
        """What makes the part that can update `tensor`: a function of the rule and a list of
        tensors."""

        def reference(rule: Rule, tensors: Sequence[Tensor]) -> PlanPart:
            return ReferencePart(rule, tensors, self.lazy and rule.lazy)

        if isinstance(tensor.weight, RowSparse):
            return partial(StoredPart, partial(Plan, self.engine), self.lazy)
        if arrays.is_cupy(tensor.weight):
            from mxopt.engine import cuda

            return cuda.needs(self.lazy, rule, tensor)
        if self.engine == "numpy":
            return reference
        if rule.by_matrix is not None:
            dense = tensor.plain and not isinstance(tensor.grad, RowSparse)
            return MatricesPart if dense else partial(CopiesPart, self._needs, False)
        if isinstance(tensor.grad, RowSparse):
            if not (self.lazy and rule.lazy) and rule.by_row is None:
                return self._needs_all(rule, tensor, (StagedPart, ScatteredPassesPart, ScatteredPart))
            if not tensor.plain:
                return reference
            return LazyLayerwisePart if rule.layerwise else SparsePart
        if rule.by_row is not None:
            return RowsPart if tensor.plain else reference
        return self._needs_all(rule, tensor, (StagedPart, PassesPart, NativePart))

    def _needs_all(self, rule: Rule, tensor: Tensor, kinds: tuple[Any, Any, Any]) -> Any:
        """The same where every element moves. `kinds` are the parts for strided memory, for several
        passes, and for one launch."""
        with_gaps, passes, one = kinds
        if not tensor.plain:
            return with_gaps
        return passes if rule.layerwise and (tensor.weight.size > PIECE or "size" in rule.hypers) else one


def _never(weight: object, grad: object) -> bool:
    return False
