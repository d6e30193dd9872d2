"""`mxopt.nn` in a store whose values are row-sparse: the bits of dense ones, weight decay
included."""

from __future__ import annotations

import numpy as np
import pytest
from table import GROUPED, Grouped

from mxopt import Parameter, kvstore, nn
from mxopt.errors import ArrayError
from mxopt.sparse import row_sparse_array

ROWS = {row.name: row for row in GROUPED if row.name.startswith("nn.") and not row.alone}
KEPT = [row for name, row in ROWS.items() if name != "nn.AdaFactor"]


def trained(row: Grouped, sparse_value: bool, sparse_grads: bool) -> np.ndarray:
    rng, store = np.random.default_rng(0), kvstore.create()
    value = rng.standard_normal((7, 3), np.float32)
    value[5] = 0
    store.set_optimizer(row.over([{"params": [Parameter(value.copy(), "w")], "weight_decay": 0.125}]))
    store.init("w", row_sparse_array(value) if sparse_value else value)
    for _ in range(3):
        grad = rng.standard_normal((7, 3), np.float32)
        store.push("w", row_sparse_array((grad[[1, 5]], [1, 5]), shape=(7, 3)) if sparse_grads else grad)
    store.pull("w", out=value)
    return value


@pytest.mark.parametrize("row", KEPT, ids=str)
@pytest.mark.parametrize("sparse_grads", [False, True])
def test_row_sparse_values_have_the_bits_of_dense_ones(row: Grouped, sparse_grads: bool) -> None:
    assert np.array_equal(trained(row, True, sparse_grads), trained(row, False, sparse_grads))


def test_adafactor_says_why_it_takes_none() -> None:
    store, value = kvstore.create(), np.ones((7, 3), np.float32)
    store.set_optimizer(nn.AdaFactor([Parameter(value.copy(), "w")]))
    store.init("w", row_sparse_array(value))
    with pytest.raises(ArrayError, match=r"w.*: AdaFactor keeps a state for each column, which a row-sparse value"):
        store.push("w", value)
