"""Preparation of gradients before a step. These functions return new arrays."""

from __future__ import annotations

import numpy as np

from mxopt.device import to_host
from mxopt.sparse import RowSparse
from mxopt.typing import Array


def decayed(grad: Array, weight: Array, decay: float) -> Array:
    """`grad + decay * weight`; for a row-sparse gradient in its rows."""
    if isinstance(grad, RowSparse):
        rows = weight.read(to_host(grad.indices)) if isinstance(weight, RowSparse) else weight[grad.indices]
        return RowSparse(decayed(grad.data, rows, decay), grad.indices, grad.shape)
    return grad + (decay * weight).astype(grad.dtype)


def centralized(grad: Array) -> Array:
    """`grad` minus its mean over all axes but the first, https://arxiv.org/abs/2004.01461; a vector
    is returned itself."""
    if isinstance(grad, RowSparse):
        return RowSparse(centralized(grad.data), grad.indices, grad.shape)
    return grad - grad.mean(axis=tuple(range(1, grad.ndim)), keepdims=True) if grad.ndim > 1 else grad


def widened(grad: Array) -> Array:
    """`grad`, in float32 if it has 16 bits."""
    return grad.astype(np.float32) if grad.dtype.itemsize == 2 else grad
