"""Updates by rules that reduce over rows and columns: NumPy, or CuPy, makes the reductions and the
direction, and the plan of another rule the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.device import library_of, on_device_of
from mxopt.engine.reference import ReferencePart, Scalars, call
from mxopt.engine.tensor import Tensor
from mxopt.rules.rule import Rule, without_reductions
from mxopt.sparse import RowSparse
from mxopt.typing import Array


class DirectedPart(ReferencePart):
    """One tensor, of any memory layout; a row-sparse gradient counts as a dense one. `plan_of`
    makes the step's plan.

    The means are taken in double, in NumPy's order: the same for every engine of the CPU.
    """

    def __init__(self, plan_of: Callable[..., Any], rule: Rule, tensors: Sequence[Tensor]) -> None:
        super().__init__(rule, tensors, False)
        self.plan_of = plan_of

    def prepare(self, rows: Sequence[Scalars], which: Sequence[int]) -> None:
        (tensor,), rule, inner = self.tensors, self.rule, without_reductions(self.rule)
        weight = tensor.weight
        real = np.float64 if weight.dtype.itemsize == 8 else np.float32
        hypers = dict(zip(rule.hypers, rows[which[0]], strict=False)) | {"size": weight.size or 1}
        states = dict(zip(rule.states, tensor.states, strict=True))
        grad = tensor.grad.todense() if isinstance(tensor.grad, RowSparse) else tensor.grad
        values = {name: real(value) for name, value in hypers.items()} | {"grad": grad.astype(real)}
        self.renewed: list[tuple[Array, Array]] = []
        with np.errstate(all="ignore"), on_device_of(weight):
            for reduction in rule.reductions:
                state = states.pop(reduction.state)
                (x,) = call(reduction.value, values)
                values["mean_square"] = _mean_square(x, reduction.over(weight.ndim)).astype(real)
                values[reduction.state] = state.astype(real)
                (values[reduction.state],) = call(reduction.update, values)
                self.renewed.append((state, values[reduction.state]))
            (direction,) = call(rule.direction, values) if rule.direction else (grad,)
        self.direction = library_of(weight).asarray(direction)  # kept for the plan, which holds on to no gradient
        step = Tensor(tensor.name, weight, self.direction, tuple(states.values()), tensor.master)
        self.plan = self.plan_of(inner, [step], False)
        self.plan.prepare([[hypers[name] for name in inner.hypers[: inner.given]]], [0])

    def finish(self) -> None:
        self.plan.finish()
        with np.errstate(all="ignore"):
            for state, value in self.renewed:
                state[...] = value


def _mean_square(x: Array, axes: tuple[int, ...]) -> Array:
    squares = x * x
    if not axes:
        return squares
    count = max(1, int(np.prod([x.shape[axis] for axis in axes])))
    return library_of(x).sum(squares, axis=axes, dtype=np.float64, keepdims=True) / count
