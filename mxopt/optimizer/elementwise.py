"""`NDabs`, which `mxnet.optimizer` exports beside its optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.errors import ArrayTypeError
from mxopt.sparse import RowSparse
from mxopt.typing import Array


def NDabs(data: Array = None, out: Array = None, name: str | None = None, **kwargs: object) -> Any:  # noqa: N802
    """The absolute value of each element.

    Parameters
    ----------
    data : array or RowSparse
    out : array, optional
        Where to write the result; a new array by default. Not for RowSparse.
    name : str, optional
        Has no effect, as in MXNet.

    Returns
    -------
    array or RowSparse
        `out`, or a new one of the same kind.

    >>> NDabs(np.array([-2, 0, 3]))
    array([2, 0, 3])
    """
    if data is None:
        raise ArrayTypeError("NDabs: needs data")
    if isinstance(data, RowSparse):
        return RowSparse(np.abs(data.data), data.indices, data.shape)
    return np.abs(arrays.as_array(data, "NDabs: data"), out=out)
