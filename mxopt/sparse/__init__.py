"""Row-sparse arrays: arrays that store only some rows of a large table, for embedding tables and
their gradients."""

from mxopt.sparse.array import RowSparse
from mxopt.sparse.initial import Table, table
from mxopt.sparse.making import retain, row_sparse_array, zeros

__all__ = ["RowSparse", "Table", "retain", "row_sparse_array", "table", "zeros"]


def __dir__() -> list[str]:
    return __all__
