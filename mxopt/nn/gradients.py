"""What is done to gradients before a step. No function changes the gradient it is given."""

from __future__ import annotations

import numpy as np

from mxopt.sparse import RowSparse
from mxopt.typing import Array


def decayed(grad: Array, weight: Array, decay: float) -> Array:
    """`grad + decay * weight`; of a row-sparse gradient the rows it has."""
    if isinstance(grad, RowSparse):
        return RowSparse(decayed(grad.data, weight[grad.indices], decay), grad.indices, grad.shape)
    return grad + (decay * weight).astype(grad.dtype)


def centralized(grad: Array) -> Array:
    """`grad` less its mean over all axes but the first, https://arxiv.org/abs/2004.01461; vectors
    as they are."""
    if isinstance(grad, RowSparse):
        return RowSparse(centralized(grad.data), grad.indices, grad.shape)
    return grad - grad.mean(axis=tuple(range(1, grad.ndim)), keepdims=True) if grad.ndim > 1 else grad


def scaled(grad: Array, factor: float) -> Array:
    """`factor * grad`."""
    if isinstance(grad, RowSparse):
        return RowSparse(scaled(grad.data, factor), grad.indices, grad.shape)
    return grad * factor


def widened(grad: Array) -> Array:
    """`grad` in float32 where it has 16 bits."""
    if isinstance(grad, RowSparse):
        return RowSparse(widened(grad.data), grad.indices, grad.shape)
    return grad.astype(np.float32) if grad.dtype.itemsize == 2 else grad
