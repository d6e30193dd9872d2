"""Plans: an update of certain tensors by a rule, prepared once and run at each step.

A plan sorts its tensors into parts by what they need: plain arrays of the same dtypes and device go
together into one job, the rest one by one.
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
    """Some tensors of a plan that run together.

    `bind` (`bind_one` for a single tensor) takes the arrays of a step, and returns False where they
    are not like the ones the part was made for, or a gradient lies in the memory that `forbid` has
    named; a part that is not `lasting` never takes them. `prepare` (`prepare_one`) takes the
    hyper-parameters, `hypers[which[t]]` for tensor t, and has whatever memory is needed. It returns
    a function of C that makes the update in one call, of `address`, for a `direct` part always;
    where there is none, `finish` makes it.
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
    """An update of `tensors` by `rule`, by the engine called `engine`. `doubles` are the places of
    float64 weights.

    `lazy`: leave the rows alone for which a row-sparse gradient has none, where the rule allows it.
    Raises ArrayError where the arrays can't be updated.
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
        # Whether the plan may serve again. Then it holds on to no weight and no gradient.
        self.lasting: bool = binding.can_read_arrays() and all(part.lasting for _, part in self.parts)
        # For a plan of a single tensor: part of every update, so not wrapped.
        self.single: bool = len(tensors) == 1
        self.bind_one = self.parts[0][1].bind_one if self.single and self.lasting else _never
        self.part: PlanPart = self.parts[0][1]  # of a plan of a single tensor the only one

    def forbid(self, taken: np.ndarray) -> None:
        """Lets no gradient be bound that lies in the memory `taken`, spans that are ascending."""
        for _, part in self.parts:
            if part.lasting:
                part.forbid(taken)

    def bind(self, weights: Sequence[object], grads: Sequence[object]) -> bool:
        """Whether the plan can be run with these arrays; it will then use them. Gradients may be
        given by their addresses, as `NativePart.bind_at` takes them."""
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
        """Takes the hyper-parameters, `hypers[which[t]]` for tensor t. Returns iterators that call
        the functions of C which make up the update, None for a part that `finish` makes."""
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
        """Makes the update that was prepared, in any number of calls."""
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
        """The rule of a tensor: where rows have states, but one element, that of elements. With the
        states it takes."""
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
        """The kind of part that can run `tensor`: a function of the rule and of a list of
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
        """The same where every element moves: of parts for memory with gaps, for passes, and for
        one."""
        with_gaps, passes, one = kinds
        if not tensor.plain:
            return with_gaps
        return passes if rule.layerwise and (tensor.weight.size > PIECE or "size" in rule.hypers) else one


def _never(weight: object, grad: object) -> bool:
    return False
