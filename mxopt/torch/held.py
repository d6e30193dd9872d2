"""The parameters that an optimizer holds, and their gradients as arrays."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from mxopt.engine import arrays
from mxopt.errors import ArgumentError, ArrayTypeError
from mxopt.typing import Array

_shape_of, _dtype_of = operator.attrgetter("shape"), operator.attrgetter("dtype")


COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


class Held(NamedTuple):
    """Parameters as they were when last looked at: names, arrays over their memory, addresses and
    layouts. A complex parameter is seen as pairs of real numbers along a last axis, as by
    `torch.view_as_real`."""

    tensors: list[torch.Tensor]
    names: list[str]
    views: list[np.ndarray]
    places: array[int]
    layouts: list[tuple[Any, ...]]
    sizes: list[int]
    dtypes: list[torch.dtype]

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
        columns = _places(tensors), _layouts(tensors), list(map(torch.Tensor.numel, tensors))
        return cls(list(tensors), list(names), views, *columns, list(map(_dtype_of, tensors)))

    def __add__(self, other: Held) -> Held:  # type: ignore[override]
        return Held(*map(operator.add, tuple(self), tuple(other)))

    def are(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the same tensors, each still at its address."""
        same = len(tensors) == len(self.tensors) and all(map(operator.is_, tensors, self.tensors))
        return same and _places(self.tensors) == self.places

    def lie_as_before(self) -> bool:
        """Whether each still has its shape and strides."""
        return _layouts(self.tensors) == self.layouts

    def places_of(self, grads: Sequence[Array]) -> array[int] | None:
        """The gradients' addresses, if parameters and gradients are all of the common kind:
        contiguous, and of the same dtype and size. This is far cheaper than making arrays."""
        if set(map(type, grads)) != {torch.Tensor}:
            return None
        try:
            whole = all(map(torch.Tensor.is_contiguous, chain(self.tensors, grads)))
        except RuntimeError:  # a sparse tensor can't be asked
            return None
        if not whole or any(map(torch.Tensor.is_neg, grads)) or list(map(_dtype_of, grads)) != self.dtypes:
            return None
        if not COMPLEX.isdisjoint(self.dtypes) and any(map(torch.Tensor.is_conj, grads)):
            return None
        return _places(grads) if list(map(torch.Tensor.numel, grads)) == self.sizes else None

    def arrays_of(self, grads: Sequence[Array]) -> list[Any]:
        """The gradients as arrays over their memory; None stays None."""
        if not COMPLEX.isdisjoint(self.dtypes):
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
    return list(zip(map(_shape_of, tensors), map(torch.Tensor.stride, tensors), strict=True))


def renew(master: np.ndarray, weight: np.ndarray) -> None:
    """Resets elements of a float32 master copy to those of its 16-bit weight where the weight isn't
    the rounded copy: where someone else has written it."""
    with np.errstate(over="ignore"):
        written = master.astype(weight.dtype).view(np.uint16) != weight.view(np.uint16)
    if written.any():
        master[written] = weight[written]
