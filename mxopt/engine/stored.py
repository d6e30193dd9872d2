"""Updates row-sparse weights: the rows that are there are an array like any other, a gradient's rows places in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.device import library_of, on_device_of, to_host
from mxopt.engine.tensor import Tensor
from mxopt.errors import ArrayError
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.sparse.array import union

Scalars = Sequence[float]


class StoredPart:
    """One tensor whose weight is row-sparse; its states and its master copy mostly are too.

    Rows that the update moves are made where they aren't there yet, as the zeros that they are: those of the gradient,
    or all of them where the update isn't lazy, or a rule needs norms of the whole tensor. So the numbers are those of
    the dense weight it stands for, to the last bit. `plan_of` makes the plan of the arrays that hold the rows.

    Keeps the states alive, but no weight and no gradient.
    """

    def __init__(
        self, plan_of: Callable[[Rule, Sequence[Tensor], bool], Any], lazy: bool, rule: Rule, tensors: Sequence[Tensor]
    ) -> None:
        (tensor,) = tensors
        lazy = (lazy and rule.lazy) or rule.lazy_storage or rule.row_state is not None
        weight, parts = tensor.weight, [*tensor.states] + [tensor.master] * (tensor.master is not None)
        stored = [x for x in (weight, *parts) if isinstance(x, RowSparse)]
        some = lazy and isinstance(tensor.grad, RowSparse) and not rule.layerwise
        if some and all(isinstance(x, RowSparse) for x in parts):
            wanted = to_host(weight.indices)
            for x in (tensor.grad, *stored):
                wanted = union(wanted, to_host(x.indices))
            for x in stored:
                x.add_rows(wanted)
        else:
            for x in stored:
                x.add_all_rows()
        self.weight_indices, self.shape = weight.indices, weight.shape
        self.held = [(x, x.data) for x in parts if isinstance(x, RowSparse)]
        states = tuple(x.data if isinstance(x, RowSparse) else x for x in tensor.states)
        master = tensor.master.data if isinstance(tensor.master, RowSparse) else tensor.master
        grad = self._placed(weight, tensor.grad)
        rounding = tensor.rounding
        if rounding is not None and len(weight.data) < weight.shape[0]:
            rounding = rounding.of_rows(to_host(weight.indices))
        self.plan = plan_of(rule, [Tensor(tensor.name, weight.data, grad, states, master, rounding)], lazy)
        self.lasting = self.plan.lasting

    def forbid(self, taken: np.ndarray) -> None:
        """Lets no gradient be bound that lies in the memory `taken`."""
        self.plan.forbid(taken)

    def bind_one(self, weight: Any, grad: Any) -> bool:
        """Makes the next `run` use this gradient; False where the arrays aren't like the ones laid out for, or a row
        of the gradient isn't there yet."""
        if type(weight) is not RowSparse or weight.indices is not self.weight_indices or weight.shape != self.shape:
            return False
        if any(x.data is not data for x, data in self.held):
            return False
        placed = self._placed(weight, grad)
        return placed is not None and self.plan.bind_one(weight.data, placed)

    def bind(self, weights: Sequence[Any], grads: Sequence[Any]) -> bool:
        """The same for lists of one."""
        return self.bind_one(*weights, *grads)

    @property
    def direct(self) -> bool:
        return bool(self.plan.part.direct)

    @property
    def address(self) -> int:
        return int(self.plan.part.address)

    def prepare_one(self, hypers: Scalars) -> Any:
        """Takes the hyper-parameters; see `Part`."""
        return self.plan.part.prepare_one(hypers)

    def prepare(self, rows: Sequence[Scalars], which: Sequence[int]) -> Any:
        """The same for lists of one."""
        return self.prepare_one(rows[which[0]])

    def finish(self) -> None:
        """Does what `prepare` has prepared."""
        self.plan.finish()

    def _placed(self, weight: RowSparse, grad: Any) -> Any:
        """The gradient of the array that holds the rows of `weight`; None where it has others."""
        if len(weight.data) == self.shape[0]:
            return grad
        if not isinstance(grad, RowSparse) or grad.shape != self.shape:
            return None
        indices = to_host(grad.indices)
        if indices.ndim != 1 or indices.dtype != np.int64:
            return None
        places = weight.places(indices)
        if places is None:
            return None
        with on_device_of(grad.indices):
            self.places = library_of(grad.indices).asarray(places)  # kept alive for the run
        return RowSparse(grad.data, self.places, weight.data.shape)


def check_once(tensors: Sequence[Tensor]) -> None:
    """Raises where a row-sparse weight comes twice in a list: the rows that one update adds the other doesn't know."""
    names: dict[int, str] = {}
    for tensor in tensors:
        if isinstance(tensor.weight, RowSparse) and names.setdefault(id(tensor.weight), tensor.name) != tensor.name:
            other = names[id(tensor.weight)]
            raise ArrayError(f"{tensor.name}: its row-sparse weight is that of {other} too; update them in two calls")
