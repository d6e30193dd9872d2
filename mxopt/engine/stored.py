"""Updates row-sparse weights: the stored rows are an array like any other, and a gradient's rows
are positions in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import ref

import numpy as np

from mxopt.device import library_of, on_device_of, to_host
from mxopt.engine.rows import Placed
from mxopt.engine.tensor import Tensor
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArrayError
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.sparse.summed import Summed
from mxopt.typing import Array, Hypers


class StoredPart:
    """One tensor whose weight is row-sparse; usually its states and its master copy are too.

    Missing rows that the update moves are added first, with the values that they stand for: the
    gradient's rows, or all rows if the update isn't lazy or the rule needs norms of the whole
    tensor. So the result equals that of the dense weight, to the last bit. `plan_of` makes the plan
    for the arrays that hold the rows. If a signal handler raises, all arrays still have the same
    rows.

    Keeps the states alive, but no weight and no gradient.
    """

    slots: Callable[[], Any]
    _reaches = False

    def __init__(
        self, plan_of: Callable[[Rule, Sequence[Tensor], bool], Any], lazy: bool, rule: Rule, tensors: Sequence[Tensor]
    ) -> None:
        (tensor,) = tensors
        lazy = (lazy and rule.lazy) or rule.lazy_storage or rule.by_row is not None
        weight, parts = tensor.weight, [*tensor.states] + [tensor.master] * (tensor.master is not None)
        stored = [x for x in parts if isinstance(x, RowSparse)]
        some = lazy and isinstance(tensor.grad, RowSparse) and not rule.layerwise
        if some and len(stored) == len(parts):
            uninterrupted(partial(_have_rows, weight, stored, tensor.master, to_host(tensor.grad.indices)))
        else:
            uninterrupted(partial(_have_all_rows, [weight, *stored]))
        self.shape = weight.shape
        self.indices: Array | None = None if weight.slots else weight.indices
        self.slots = ref(weight.slots) if weight.slots else _nowhere
        self.held: list[tuple[RowSparse, object]] = [(x, x.memory) for x in stored]
        arrays = [x.memory for x in (weight, *stored)] + ([weight.slots.index.numbers] if weight.slots else [])
        self.room: int = min(map(len, arrays))  # how many rows all arrays have room for
        memory = {id(x): x.memory[: self.room] for x in stored}
        states = tuple(memory.get(id(x), x) for x in tensor.states)
        master = memory.get(id(tensor.master), tensor.master)
        random = [tensor.rounding, tensor.noise]
        if weight.slots is not None or weight.row_count < weight.shape[0]:
            of = weight.slots.index.numbers[: self.room] if weight.slots is not None else to_host(weight.indices)
            random = [x and x.of_rows(of) for x in random]
        self.grad: Array  # kept alive for the run
        self.plan: Any

        def make(reaches: bool) -> bool:
            """Makes the plan, by a gradient whose rows lie apart where they may; returns whether it
            can read such rows."""
            self._reaches = reaches
            self.grad = self._placed(weight, tensor.grad)
            inner = Tensor(tensor.name, weight.memory[: self.room], self.grad, states, master, *random)
            self.plan = plan_of(rule, [inner], lazy)
            return getattr(self.plan.part, "reaches", False)

        reaches = make(some)  # most of what `some` is true of can, and then nothing is copied
        apart = isinstance(self.grad, Placed) and self.grad.addresses is not None
        if apart and not (reaches and self.plan.bind_one(weight.memory[: self.room], self.grad)):
            reaches = make(False)
        self._reaches = reaches
        self.lasting: Any = self.plan.lasting

    def forbid(self, taken: np.ndarray) -> None:
        self.plan.forbid(taken)

    def bind_one(self, weight: Array, grad: Array) -> bool:
        """See `PlanPart`. Also returns False if there is no room for a new row of the gradient."""
        if type(weight) is not RowSparse or weight.shape != self.shape:
            return False
        if weight.slots is not self.slots() or (weight.slots is None and weight.indices is not self.indices):
            return False
        if any(x.memory is not memory for x, memory in self.held):
            return False
        placed = self._placed(weight, grad)
        if placed is None or not self.plan.bind_one(weight.memory[: self.room], placed):
            return False
        self.grad = placed
        return True

    def bind(self, weights: Sequence[Array], grads: Sequence[Array]) -> bool:
        return self.bind_one(*weights, *grads)

    @property
    def direct(self) -> bool:
        return bool(self.plan.part.direct)

    @property
    def address(self) -> int:
        return int(self.plan.part.address)

    def prepare_one(self, hypers: Hypers) -> Array:
        return self.plan.part.prepare_one(hypers)

    def prepare(self, hypers: Sequence[Hypers], which: Sequence[int]) -> Array:
        return self.prepare_one(hypers[which[0]])

    def finish(self) -> None:
        self.plan.finish()

    def _placed(self, weight: RowSparse, grad: Array) -> Array:
        """The gradient with positions in the array that holds the rows of `weight`; None if some of
        its rows aren't there."""
        if weight.slots is None and weight.row_count == self.shape[0]:
            return grad
        if not isinstance(grad, RowSparse) or grad.shape != self.shape or not grad.is_sound():
            return None
        indices = to_host(grad.indices)
        if weight.slots is None:
            places = weight.places(indices)
        else:
            them = [weight, *(x for x, _ in self.held)]
            places = weight.slots.index.find(indices)
            if places.min(initial=0) < 0:  # rare, so worth the other thread of `uninterrupted`
                uninterrupted(partial(_add, them, indices, places))
            for x in them:
                x.fill()
            if weight.row_count > self.room:
                return None
        if places is None:
            return None
        where = grad.addresses() if isinstance(grad, Summed) and self._reaches else None
        with on_device_of(grad.indices):
            data = grad.data if where is None else np.empty((0, *self.shape[1:]), grad.dtype)
            placed = Placed(data, library_of(grad.indices).asarray(places), (self.room, *self.shape[1:]))
        placed.addresses = where
        return placed


def _nowhere() -> None:
    """Stands for a reference to slots where there are none."""


def _have_rows(weight: RowSparse, others: Sequence[RowSparse], master: Array, indices: np.ndarray) -> None:
    """Makes sure that all arrays have the rows `indices`, and all rows that any of them has, at the
    same positions."""
    flat = all(x.slots is None for x in (weight, *others))
    if (
        flat
        and all(np.array_equal(_row_numbers(x), _row_numbers(weight)) for x in others)
        and weight.places(indices) is not None
    ):
        return
    weight.put_in_slots()
    for x in others:
        x.put_in_slots(weight, weight.initial if x is master else None)
    _add([weight, *others], indices, np.empty_like(indices))


def _have_all_rows(them: Sequence[RowSparse]) -> None:
    for x in them:
        x.add_all_rows()


def _add(them: Sequence[RowSparse], indices: np.ndarray, places: np.ndarray) -> None:
    """Adds the rows `indices` to arrays that share their slots, and writes their slots to
    `places`."""
    places[...] = them[0].put_in_slots().index.add(indices)
    for x in them:
        x.fill()


def _row_numbers(x: RowSparse) -> np.ndarray:
    found: np.ndarray = to_host(x.indices)
    return found


def check_once(tensors: Sequence[Tensor]) -> None:
    """Raises ArrayError if a row-sparse weight is listed twice: one update wouldn't know of the
    rows that the other adds."""
    names: dict[int, str] = {}
    for tensor in tensors:
        if isinstance(tensor.weight, RowSparse) and names.setdefault(id(tensor.weight), tensor.name) != tensor.name:
            other = names[id(tensor.weight)]
            raise ArrayError(f"{tensor.name}: its row-sparse weight is that of {other} too; update them in two calls")
