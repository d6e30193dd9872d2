"""The norm of many arrays together: one pass that reads them and writes nothing.

Pieces are summed as for the layer-wise rules, and the pieces' sums are added exactly, so the result
depends neither on the engine nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from mxopt.device import place_of
from mxopt.engine import arrays, reference
from mxopt.engine.choice import engine_in_use
from mxopt.engine.native import PassesPart
from mxopt.engine.tensor import Tensor
from mxopt.errors import ArrayTypeError
from mxopt.rules import norms
from mxopt.rules.common import norm
from mxopt.typing import Array


def global_norm(given: Sequence[Array], names: Sequence[str]) -> float:
    """The Euclidean norm of all elements of these arrays, in double; not finite if one of them
    isn't.

    A row-sparse array counts with the rows that it has. `names` are what errors call the arrays.
    Raises ArrayTypeError for anything but arrays of a gradient's dtypes.
    """
    together: dict[Hashable, list[Array]] = {}
    for x, name in zip(given, names, strict=True):
        x = arrays.plain(arrays.data_of(arrays.as_gradient(x, name)))
        like = together.setdefault((place_of(x), x.dtype), [])
        if not like and arrays.dtype_name(x.dtype) is None:
            raise ArrayTypeError(f"{name}: needs one of {', '.join(arrays.DTYPES.values())}, got {x.dtype}")
        like.append(x)
    return norm(chain.from_iterable(map(_squares, together.values())))


def _squares(like: Sequence[Array]) -> list[float]:
    """The sums of squares of the pieces of plain arrays of one place and dtype."""
    if arrays.is_cupy(like[0]):
        from mxopt.engine.cuda import CudaPart

        return CudaPart(norms.global_norm, _tensors(like)).squares(0)
    if engine_in_use() == "numpy":
        return [square for x in like for square in reference.squares(x)]
    part = _Launch(norms.global_norm, _tensors(like))
    part.launch(0)
    (squares,) = part.squares(0)
    return squares


def _tensors(like: Sequence[Array]) -> list[Tensor]:
    return [Tensor("", x, x) for x in like]  # the rule reads no weight and writes none


class _Launch(PassesPart):
    """Laid out for one launch, so it needn't recognise arrays later."""

    def _addresses(self, tensors: Sequence[Tensor]) -> npt.NDArray[np.int64]:
        places = np.array([t.grad.ctypes.data for t in tensors], np.int64)
        return np.stack([places, places], axis=1)  # the weight is the gradient, and asking takes a microsecond

    def _expect(self, tensors: Sequence[Tensor]) -> None:
        pass
