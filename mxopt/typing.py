"""What annotations call things.

To type checkers `Array` and `State` are anything, since it depends on a program's arrays what they
are; `AnyArray` is whatever can be an array. Of what is in a list they know nothing: mypy takes a
list of several kinds of things for one of `object`, and would find fault with programs that are
right. While a program runs the names say more, for signatures and the docs show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

__all__ = ["AnyArray", "Array", "Dtype", "HasGroups", "HasRate", "State"]

if TYPE_CHECKING:

    class HasArray(Protocol):
        """As NumPy's arrays, PyTorch's tensors, a RowSparse and a Parameter have it."""

        @property
        def __array__(self) -> Any: ...

    class HasDLPack(Protocol):
        @property
        def __dlpack__(self) -> Any: ...

    class HasInterface(Protocol):
        @property
        def __array_interface__(self) -> Any: ...

    class HasCudaInterface(Protocol):
        @property
        def __cuda_array_interface__(self) -> Any: ...

    class HasBuffer(Protocol):
        @property
        def __buffer__(self) -> Any: ...

    class HasAppend(Protocol):
        """A list by another name, as PyTorch's ParameterList."""

        def __iter__(self) -> Iterator[Any]: ...

        @property
        def append(self) -> Any: ...

    Array: TypeAlias = Any
    State: TypeAlias = Any
    AnyArray: TypeAlias = HasArray | HasDLPack | HasInterface | HasCudaInterface | HasBuffer
    Arrays: TypeAlias = AnyArray | Sequence[Any]
    Gradients: TypeAlias = Sequence[Any]
    NamedArrays: TypeAlias = Sequence[Any] | Mapping[Any, Any]
    Params: TypeAlias = Sequence[Any] | Iterator[Any] | MappingView | HasAppend  # an array is an Iterable, too
else:

    class Array:
        """An array of NumPy or CuPy, bfloat16 ones included; where a docstring says so also a
        RowSparse, or what lends its memory, as a tensor of PyTorch does."""

    class State:
        """What an optimizer keeps of a weight: None, an array, or a tuple of them; with a master
        copy a pair of that and it."""

    class AnyArray:
        """What can be an array to mxopt: one of NumPy or CuPy, a tensor of PyTorch, an array of
        JAX, a RowSparse, a Parameter; whatever lends its memory by DLPack or the buffer
        protocol."""

    Arrays = AnyArray | Sequence[AnyArray | Sequence[AnyArray]]  # one; some for a key; for each of some keys
    Gradients = Sequence[AnyArray | None]
    NamedArrays = Sequence[AnyArray] | Mapping[Any, AnyArray]
    Params = Iterable[AnyArray | tuple[str, AnyArray] | Mapping[str, Any]]

Dtype: TypeAlias = str | type | np.dtype[Any]
"""A dtype, its name or its type, all that NumPy takes for one but for those of records."""

Plain: TypeAlias = dict[str, Any]
"""Plain data by name: what a saved document or a message carries."""

Document: TypeAlias = Mapping[str, Any]
"""The same, where it is only read."""

Hypers: TypeAlias = Sequence[float]
"""All hyper-parameters of an update of one tensor, in the order of its rule's `hypers`."""


class HasGroups(Protocol):
    """An optimizer with groups of parameters, each with a rate of its own: those of
    `mxopt.experimental.optim`, of `mxopt.torch` and of PyTorch."""

    @property
    def param_groups(self) -> Any:
        """A list of dicts."""


class HasRate(Protocol):
    """An optimizer with one learning rate that can be set: those of `mxopt.create`, and a
    `Trainer`."""

    @property
    def learning_rate(self) -> Any:
        """The rate."""

    @property
    def set_learning_rate(self) -> Any:
        """Sets it."""
