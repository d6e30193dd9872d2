"""Row-sparse arrays: some rows of a large table, as embedding tables and their gradients have them."""

from mxopt.sparse.array import RowSparse
from mxopt.sparse.making import retain, row_sparse_array, zeros

__all__ = ["RowSparse", "retain", "row_sparse_array", "zeros"]


def __dir__() -> list[str]:
    return __all__
