"""What a server holds of keys that are stored by rows: tables, and values that were row-sparse when
they came."""

from __future__ import annotations

import numpy as np

from mxopt.errors import ProtocolError
from mxopt.kvstore import wire
from mxopt.kvstore.wire import Key
from mxopt.sparse import Table
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table
from mxopt_server.entries import Entry, Part


class TableEntry(Entry):
    """The rows of a key that this server has: of `servers` each has those whose numbers leave its
    rank as the rest.

    It is one part, whose weight is row-sparse; a row is there once it is stored or updated.
    `declared`: the key is a table, not a value that was row-sparse. It is complete when it has the
    `total` rows of the first value.
    """

    by_rows = True

    def __init__(self, key: Key, table: Table, declared: bool, servers: int, round: int, total: int) -> None:
        super().__init__(key, wire.name_of(table.dtype), table.shape, table.shape, 0, round)
        self.table, self.declared, self.servers, self.total = table, declared, servers, total
        self.is_all, self.step, self.pieces = servers == 1, self.units, 1
        self.weight = of_table(table, Initial(table, key) if declared else None)
        self.have = 0  # rows of the first value so far

    @property
    def nbytes(self) -> int:
        return int(self.weight.nbytes)

    def take(self, data: np.ndarray, ids: np.ndarray, have: int) -> None:
        """Takes rows of the first value, of which there are `have` then."""
        if len(ids):
            self.weight.write(data.reshape(len(ids), *self.shape[1:]), ids)
        self.have = have
        if self.have == self.total:
            self.parts = [Part(self, 0)]

    def check(self, ids: np.ndarray, server: int, ascending: bool = True) -> None:
        """Raises ProtocolError if `ids` can't be rows of this server's, which has number
        `server`."""
        if len(ids) and (ids.min() < 0 or ids.max() >= self.units):
            raise ProtocolError(f"key {self.key!r}: row numbers must be within 0 to {self.units - 1}")
        if ascending and np.any(ids[1:] <= ids[:-1]):
            raise ProtocolError(f"key {self.key!r}: row numbers must ascend")
        if self.servers > 1 and np.any(ids % self.servers != server):
            raise ProtocolError(f"key {self.key!r}: rows of another server than number {server} of {self.servers}")
