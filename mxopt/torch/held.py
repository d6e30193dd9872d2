"""The parameters that an optimizer holds, and their gradients as arrays."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mxopt.engine import arrays, dlpack
from mxopt.errors import ArgumentError, ArrayTypeError
from mxopt.typing import Array

_shape_of, _dtype_of = operator.attrgetter("shape"), operator.attrgetter("dtype")


COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


@dataclass(eq=False)
class Held:
    """Parameters as they were when last looked at: names, arrays over their memory, addresses and
    layouts. A complex parameter is seen as pairs of real numbers along a last axis, as by
    `torch.view_as_real`."""

    tensors: list[torch.Tensor]
    names: list[str]
    views: list[np.ndarray]
    places: array[int]
    layouts: list[tuple[Any, ...]]

    def __post_init__(self) -> None:
        self.complex: bool = not COMPLEX.isdisjoint(map(_dtype_of, self.tensors))

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], names: Sequence[str]) -> Held:
        """Looks at parameters. Raises if one can't be updated, or is given twice."""
        if len(set(map(id, tensors))) < len(tensors):
            twice = next(name for k, name in enumerate(names) if any(tensors[k] is t for t in tensors[:k]))
            raise ArgumentError(f"parameter {twice!r} stands twice in its group")
        for tensor, name in zip(tensors, names, strict=True):
            if tensor.device.type != "cpu":
                raise ArrayTypeError(
                    f"parameter {name!r} is on {tensor.device}: only those on the CPU can be updated here"
                )
        named = zip(tensors, (f"parameter {name!r}" for name in names), strict=True)
        views = [arrays.as_array(real(tensor, name), name) for tensor, name in named]
        for view, name in zip(views, names, strict=True):
            arrays.check_weight(view, f"parameter {name!r}", "it")
        return cls(list(tensors), list(names), views, _places(tensors), _layouts(tensors))

    def __add__(self, other: Held) -> Held:
        return Held(*map(operator.add, self._columns, other._columns))

    @property
    def _columns(self) -> tuple[Any, ...]:
        return self.tensors, self.names, self.views, self.places, self.layouts

    def are(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the same tensors."""
        return len(tensors) == len(self.tensors) and all(map(operator.is_, tensors, self.tensors))

    def lie_as_before(self) -> bool:
        """Whether each still has its memory, shape, strides and dtype."""
        return _places(self.tensors) == self.places and _layouts(self.tensors) == self.layouts

    @cached_property
    def _finder(self) -> dlpack.Finder | None:
        """None if some gradients must be looked at one by one in any case."""
        plain = len(self.tensors) > 0 and all(view.flags.c_contiguous for view in self.views)
        usable = plain and dlpack.describer(torch.Tensor) and self.lie_as_before()
        return dlpack.Finder(self.tensors, torch.Tensor) if usable else None

    def places_of(self, grads: Sequence[Array]) -> array[int] | None:
        """The gradients' addresses, if the parameters lie as before, and all of these and of the
        gradients are of the common kind: contiguous, and of the same dtype and shape. This is far
        cheaper than making arrays."""
        places = None if self._finder is None else self._finder.places(grads)
        if places is None or any(map(torch.Tensor.is_neg, grads)):
            return None
        return None if self.complex and any(map(torch.Tensor.is_conj, grads)) else places

    def arrays_of(self, grads: Sequence[Array]) -> list[Any]:
        """The gradients as arrays over their memory; None stays None."""
        if self.complex:
            named = zip(grads, (f"parameter {name!r}, grad" for name in self.names), strict=True)
            grads = [g if g is None else real(g.resolve_conj(), name) for g, name in named]
        lent = arrays.lent_by(grads)
        if lent is not None:
            return lent
        pairs = zip(self.names, grads, strict=True)
        return [g if g is None else arrays.as_gradient(g, f"parameter {name!r}, grad") for name, g in pairs]


def real(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """A complex tensor as pairs of real numbers along a last axis; any other tensor as it is.
    `name` is what an error calls it."""
    try:
        return torch.view_as_real(tensor) if tensor.is_complex() else tensor
    except RuntimeError as error:
        raise ArrayTypeError(f"{name}: this complex tensor isn't pairs of numbers in memory: {error}") from error


def _places(tensors: Sequence[torch.Tensor]) -> array[int]:
    return array("q", map(torch.Tensor.data_ptr, tensors))


def _layouts(tensors: Sequence[torch.Tensor]) -> list[tuple[Any, ...]]:
    shapes, dtypes = map(_shape_of, tensors), map(_dtype_of, tensors)
    return list(zip(shapes, map(torch.Tensor.stride, tensors), dtypes, strict=True))


def renew(master: np.ndarray, weight: np.ndarray) -> None:
    """Resets elements of a float32 master copy to those of its 16-bit weight where the weight isn't
    the rounded copy: where someone else has written it."""
    with np.errstate(over="ignore"):
        written = master.astype(weight.dtype).view(np.uint16) != weight.view(np.uint16)
    if written.any():
        master[written] = weight[written]
