"""Clipping of gradients by the norm of all of them, as `mxnet.gluon.utils.clip_global_norm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from mxopt.caller import warn
from mxopt.engine import arrays
from mxopt.engine.norms import global_norm
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, ArgumentTypeError, UsageError
from mxopt.options import number
from mxopt.typing import Array, Gradients

EPSILON = 1e-8  # added to the norm that is divided by


def clip_global_norm(arrays: Gradients, max_norm: float, check_isfinite: bool = True) -> float | np.ndarray:
    """Rescales arrays in place so that the Euclidean norm of all of them together is `max_norm` at
    most.

    Parameters
    ----------
    arrays : list of array or RowSparse
        float16, bfloat16, float32 or float64, of any shapes, PyTorch's tensors too; changed in
        place where their norm is larger than `max_norm`: each is multiplied by
        `max_norm / (norm + 1e-8)`, in its own precision, float32 at least.
    max_norm : float
        0 or more.
    check_isfinite : bool
        Warn where the norm isn't finite.

    Returns
    -------
    float
        The norm before, in double, the same bits on every engine; without `check_isfinite` as an
        array of shape (1,).

    Raises
    ------
    UsageError
        There are no arrays.
    ArgumentError
        `max_norm` is no number of 0 or more, or what is given is a parameter, not its gradient.
    ArrayError
        An array can't be changed in place; none has been then.

    Warns UserWarning where the norm is NaN or infinite: the arrays are multiplied all the same, and
    more of them become NaN.

    >>> grads = [np.array([3.0, 4.0]), np.array([12.0])]
    >>> clip_global_norm(grads, 6.5)
    13.0
    >>> grads[1].round(6)
    array([6.])
    """
    given = _writeable(arrays)
    _check_max_norm(max_norm)
    norm = global_norm(given, [f"array {k}" for k in range(len(given))])
    if check_isfinite:
        _warn_of_nonfinite(norm)
    uninterrupted(partial(rescale, arrays, _factor(norm, max_norm)))
    return norm if check_isfinite else np.array([norm])


class Guard:
    """What is asked of the gradients of a step before it: that all of them are finite, and their
    norm not too large.

    `skipped` counts the steps that were left out. Raises ArgumentError if `max_norm` is no
    number of 0 or more.
    """

    def __init__(self, max_norm: float | None = None, skip_nonfinite: bool = False) -> None:
        if max_norm is not None:
            _check_max_norm(max_norm)
            if max_norm == 0:
                raise ArgumentError("clip_global_norm=0 would make every gradient 0: None, the default, clips nothing")
        self.max_norm = max_norm
        self.skip_nonfinite = skip_nonfinite
        self.skipped: int = 0

    @property
    def asked(self) -> str:
        """The argument that asks for something; empty if none does."""
        return "clip_global_norm" if self.max_norm is not None else "skip_nonfinite" if self.skip_nonfinite else ""

    def __call__(self, grads: Sequence[Array], names: Sequence[str]) -> float | None:
        """What the gradients are to be multiplied by; None where the step is to be left out, which
        is counted. `names` are what errors call them."""
        norm = global_norm(grads, names)
        if self.skip_nonfinite and not math.isfinite(norm):
            self.skipped += 1
            return None
        if self.max_norm is None:
            return 1.0
        _warn_of_nonfinite(norm)
        return _factor(norm, self.max_norm)


def rescale(given: Sequence[Array], factor: float) -> None:
    """Multiplies arrays in place, each in its own precision, float32 at least; rounded once."""
    if factor == 1:
        return
    with np.errstate(all="ignore"):
        for x in given:
            if arrays.is_sparse_tensor(x):
                x *= factor
                continue
            array = arrays.data_of(arrays.as_array(x, "array"))
            if array.dtype.itemsize == 2:
                array[...] = (array.astype(np.float32) * np.float32(factor)).astype(array.dtype)
            else:
                array *= array.dtype.type(factor)
    arrays.tell_autograd(given)


def _check_max_norm(max_norm: object) -> None:
    try:
        usable = number("max_norm", max_norm) >= 0
    except ArgumentError:
        usable = False
    if not usable:
        raise ArgumentError(f"clip_global_norm: the largest norm must be a number of 0 or more, got {max_norm!r}")


def _factor(norm: float, max_norm: float) -> float:
    """1 at most, and NaN for a norm that is NaN."""
    factor = float(max_norm) / (norm + EPSILON)
    return 1.0 if factor >= 1 else factor


def _warn_of_nonfinite(norm: float) -> None:
    if not math.isfinite(norm):
        warn(
            f"clip_global_norm: the norm of the gradients is {norm}, so not all of them are finite, and clipping makes"
            " more of them NaN"
        )


def _writeable(given: object) -> list[Any]:
    if not isinstance(given, list | tuple):
        raise ArgumentTypeError(
            f"clip_global_norm takes a list of arrays, got {type(given).__name__}; for a single one give [array]"
        )
    if not given:
        raise UsageError("clip_global_norm needs an array at least")
    for k, x in enumerate(given):
        if arrays.is_parameter(x):
            raise ArgumentError(
                f"clip_global_norm: array {k} is a parameter, and it's gradients that are clipped: give its .grad (to"
                " rescale the weights themselves, an array of them, as .data of a tensor)"
            )
        if not arrays.is_sparse_tensor(x):
            arrays.check_weight(arrays.as_array(x, f"array {k}"), f"array {k}", "it")
    return list(given)
