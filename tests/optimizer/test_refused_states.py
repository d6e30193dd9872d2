"""States that can't be those of a weight are refused before anything has changed."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import flat
from table import ROWS, Row

import mxopt
from mxopt.errors import ArrayError


def grad() -> np.ndarray:
    return np.ones((4, 3), np.float32)


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def wrong_states(good: Any) -> dict[str, Any]:
    first, *_ = arrays = flat(good)
    shape, dtype = first.shape, first.dtype
    return {
        "none": None if arrays else (first,),
        "one too many": (*arrays, np.zeros(shape, dtype)),
        "another shape": tuple(np.zeros((2, 2), dtype) for _ in arrays),
        "integers": tuple(np.zeros(shape, np.int32) for _ in arrays),
        "wider": tuple(np.zeros(shape, np.float64) for _ in arrays),
        "read-only": tuple(read_only(np.zeros(shape, dtype)) for _ in arrays),
        "numbers": tuple(0.0 for _ in arrays),
        "a number": 5,
        "a text": "state",
    }


@pytest.mark.parametrize("row", [r for r in ROWS if flat(r.make().create_state(0, grad()))], ids=str)
def test_wrong_states(row: Row) -> None:
    optimizer, weight = row.make(), grad()
    for name, state in wrong_states(optimizer.create_state(0, weight)).items():
        for arguments in ((0, weight, grad(), state), ([0], [weight], [grad()], [state])):
            with pytest.raises(ArrayError, match="parameter 0"):
                optimizer.update(*arguments)
            assert np.array_equal(weight, grad()), name
            assert optimizer.num_update == 0, name
            assert optimizer._index_update_count == {}, name


def test_states_that_share_memory() -> None:
    optimizer, weight = mxopt.create("adam"), grad()
    shared = np.zeros((4, 3), np.float32)
    for state in ((shared, shared), (weight, shared), (shared[::-1], shared)):
        with pytest.raises(ArrayError, match="memory"):
            optimizer.update(0, weight, grad(), state)
    g = grad()
    with pytest.raises(ArrayError, match="memory"):
        optimizer.update(0, weight, g, (g, shared))
    assert np.array_equal(weight, grad())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_states_of_another_precision(dtype: Any) -> None:
    for row in (Row("sgd", momentum=0.5), Row("sgd"), Row("adam"), Row("lamb")):
        optimizer, weight = row.make(multi_precision=True), np.ones(3, dtype)
        inner, master = optimizer.split(optimizer.create_state_multi_precision(0, weight))
        for state in (None, inner, 5, optimizer.join(inner, None), optimizer.join(inner, master.astype(np.float64))):
            with pytest.raises(ArrayError, match="parameter 0"):
                optimizer.update_multi_precision(0, weight, np.ones(3, dtype), state)
        assert np.array_equal(weight, np.ones(3, dtype))
        assert optimizer.num_update == 0
