"""Averages of weights over the last steps, to evaluate with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mxopt.device import library_of, on_device_of
from mxopt.document import dump_document, load_document
from mxopt.engine import Steps, Tensor, arrays
from mxopt.engine.steps import run
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, StatesError, counted
from mxopt.options import number, within
from mxopt.parameter import listed, written
from mxopt.rules.averages import moving_average
from mxopt.sparse import RowSparse
from mxopt.typing import Array, NamedArrays, Plain


class ExponentialMovingAverage:
    """Exponential moving averages of parameters: each step counts `decay` times as much as the one
    after it.

    Parameters
    ----------
    params : list or dict of Parameter, or of arrays
        Any floating-point dtype and any shape; no row-sparse values. Call `update` after each step.
    decay : float
        Within [0, 1). The average reaches back about `1 / (1 - decay)` steps.

    Attributes
    ----------
    averages : dict of str to array
        By each parameter's name, or its position if it has none: at first a copy of the value, of
        float32 for 16-bit ones; changed in place by `update`.

    Raises
    ------
    ArgumentError
        `decay` is out of its range, two parameters have one name, or a value is row-sparse.
    ArrayTypeError
        A parameter's dtype can't be averaged.

    >>> from mxopt import Parameter
    >>> weight = Parameter(np.zeros(2, np.float32), "weight")
    >>> average = ExponentialMovingAverage([weight], decay=0.5)
    >>> weight.value[...] = 1
    >>> average.update()
    >>> average.averages
    {'weight': array([0.5, 0.5], dtype=float32)}
    >>> with average.applied():
    ...     print(weight.value)
    [0.5 0.5]
    >>> weight.value
    array([1., 1.], dtype=float32)
    """

    def __init__(self, params: NamedArrays, decay: float = 0.999) -> None:
        try:
            self.decay = number("decay", decay)
            within("decay", self.decay, "[0, 1)")
        except ArgumentError:
            raise ArgumentError(f"decay must be a number from 0 to below 1, got {decay!r}") from None
        self._params = listed(params)
        self.averages: Plain = {}
        for k, param in enumerate(self._params):
            name = param.name or str(k)
            if name in self.averages:
                raise ArgumentError(f"two parameters are called {name!r}: an average needs a name of its own")
            if isinstance(param.value, RowSparse):
                raise ArgumentError(f"parameter {name!r}: the average of a row-sparse value has all its rows: not made")
            self.averages[name] = _copy(param.value, name)
        self._steps = Steps()

    def update(self) -> None:
        """Moves each average by `1 - decay` of the way to its parameter, in place.

        Raises ArrayError, and changes nothing, if a parameter's array was replaced by one that
        doesn't fit.
        """
        averages, values = list(self.averages.values()), [param.value for param in self._params]
        if not averages:
            return
        uses = [(moving_average, False)]
        calls = self._steps.find(0, uses, averages, values, averages)
        if calls is None:
            tensors = [
                Tensor(f"average of {name!r}", average, value)
                for (name, average), value in zip(self.averages.items(), values, strict=True)
            ]
            calls = self._steps.make(0, uses, tensors, averages)
        run(calls, [(0.0, 0.0, 1.0, math.inf, 1 - self.decay)], [0] * len(averages))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside a `with` block the parameters' arrays hold the averages, in their own dtypes;
        after it, their former values."""
        before = [param.value.copy() for param in self._params]
        try:
            self._fill(self.averages.values())
            yield
        finally:
            uninterrupted(partial(self._fill, before))

    def _fill(self, given: Iterable[Array]) -> None:
        for param, value in zip(self._params, given, strict=True):
            param.value[...] = value.astype(param.value.dtype)
        written(self._params)

    def get_states(self) -> bytes:
        """The averages as bytes, in the format of an Updater's states (see its page in the
        docs)."""
        return dump_document({"averages": self.averages})

    def set_states(self, states: bytes) -> None:
        """Loads what `get_states` returned into the arrays of `averages`.

        Raises StatesError, and changes nothing, if the bytes are damaged or foreign, or the
        parameters have other names, shapes or dtypes.
        """
        loaded = load_document(states).get("averages")
        if not isinstance(loaded, dict):
            raise StatesError("this is no document of averages")
        found, needed = _described(loaded), _described(self.averages)
        if found != needed:
            differ = sorted(name for name in {*found, *needed} if found.get(name) != needed.get(name))
            there, here = ({name: kind.get(name, "none") for name in differ} for kind in (found, needed))
            raise StatesError(f"the averages are of other parameters: in the states {there}, here {here}")

        def fill() -> None:
            for name, average in self.averages.items():
                average[...] = arrays.to_device_of(loaded[name], average)

        uninterrupted(fill)

    def __repr__(self) -> str:
        return f"<ExponentialMovingAverage of {counted(len(self._params), 'parameter')}, decay={self.decay}>"


def _copy(value: Array, name: str) -> Array:
    """The first average: a contiguous copy in the machine's byte order."""
    arrays.check_weight(value, f"parameter {name!r}", "the value")
    wide = np.dtype(np.float32) if value.dtype.itemsize == 2 else value.dtype.newbyteorder("=")
    with on_device_of(value):
        average = library_of(value).empty(value.shape, wide)
        average[...] = value.astype(wide)
        return average


def _described(content: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): f"{getattr(x, 'dtype', None)} {getattr(x, 'shape', None)}" for name, x in content.items()}
