"""Adafactor: the paper's algorithm, the same bits on both engines, states of rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from table import PRECISIONS, REDUCING, Row, crossed_id

import mxopt
from mxopt.errors import ArrayError
from mxopt.sparse import RowSparse, row_sparse_array

SHAPES: list[tuple[int, ...]] = [(4, 5), (7,), (), (2, 3, 4), (0, 3), (1, 1)]
every = pytest.mark.parametrize("row", REDUCING, ids=str)
everywhere = pytest.mark.parametrize(("dtype", "master"), PRECISIONS, ids=crossed_id)


def arrays(rng: np.random.Generator, dtype: str = "float32") -> list[np.ndarray]:
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in SHAPES]


def paper(weight: np.ndarray, grad: np.ndarray, kept: dict[str, Any], t: int, wd: float) -> np.ndarray:
    """https://arxiv.org/abs/1804.04235, algorithms 4 and 5, with decoupled weight decay."""
    decay, square = 1 - t**-0.8, grad * grad + 1e-30
    if weight.ndim < 2:
        moment = kept["v"] = decay * kept.get("v", 0) + (1 - decay) * square
    else:
        row = kept["r"] = decay * kept.get("r", 0) + (1 - decay) * square.mean(-1)
        column = kept["c"] = decay * kept.get("c", 0) + (1 - decay) * square.mean(-2)
        moment = row[..., :, None] * column[..., None, :] / row.mean(-1)[..., None, None]
    step = grad / np.sqrt(moment)
    step /= max(1.0, np.sqrt(np.mean(step * step)))
    rate = max(1e-3, np.sqrt(np.mean(weight * weight))) * min(0.01, 1 / np.sqrt(t))
    return np.asarray(weight - rate * wd * weight - rate * step)


def test_it_is_the_papers(rng: np.random.Generator) -> None:
    weights = [w for w in arrays(rng, "float64") if w.size]
    expected, kept = [w.copy() for w in weights], [dict[str, Any]() for _ in weights]
    updater = mxopt.get_updater(mxopt.create("adafactor", wd=0.1))
    for t in range(1, 6):
        grads = [g for g in arrays(rng, "float64") if g.size]
        updater(list(range(len(weights))), grads, weights)
        expected = [paper(*each, t, 0.1) for each in zip(expected, grads, kept, strict=True)]
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@every
@everywhere
@pytest.mark.filterwarnings("ignore:.*lose accuracy")
def test_engines_lists_and_resumed_runs_have_the_same_bits(
    row: Row, dtype: str, master: bool, rng: np.random.Generator
) -> None:
    first, steps = arrays(rng, dtype), [arrays(rng, dtype) for _ in range(4)]

    def run(engine: str, as_list: bool, resumed: bool) -> list[bytes]:
        weights = [w.copy() for w in first]
        updater = mxopt.get_updater(row.make(multi_precision=master))
        with mxopt.use_engine(engine):
            for step, grads in enumerate(steps):
                if resumed and step == 2:
                    states, updater = updater.get_states(), mxopt.get_updater(row.make(multi_precision=master))
                    updater.set_states(states)
                if as_list:
                    updater(list(range(len(weights))), grads, weights)
                else:
                    for k, (grad, weight) in enumerate(zip(grads, weights, strict=True)):
                        updater(k, grad, weight)
        return [w.tobytes() for w in weights]

    expected = run("numpy", True, False)
    assert run("llvm", True, False) == run("llvm", False, False) == run("llvm", True, True) == expected


@every
def test_states_are_a_row_a_column_and_a_number_for_each_matrix(row: Row) -> None:
    shapes = [s.shape for s in row.make().create_state(0, np.ones((2, 3, 4), np.float32))]
    assert shapes[:3] == [(2, 3, 1), (2, 1, 4), (2, 1, 1)]
    assert [s.shape for s in row.make().create_state(0, np.ones(5, np.float32))][:3] == [(5,), (1,), (1,)]
    assert not row.make().elementwise


@every
def test_a_row_sparse_gradient_counts_as_a_dense_one(row: Row) -> None:
    grad = row_sparse_array((np.full((1, 3), 0.5, np.float32), [1]), shape=(4, 3))
    ends = []
    for given in (grad, grad.todense()):
        weight = np.ones((4, 3), np.float32)
        mxopt.get_updater(row.make())(0, given, weight)
        ends.append(weight.tobytes())
    assert ends[0] == ends[1]
    optimizer, table = row.make(), row_sparse_array((np.ones((1, 3), np.float32), [1]), shape=(4, 3))
    assert isinstance(table, RowSparse)
    with pytest.raises(ArrayError, match="states for columns"):
        mxopt.get_updater(optimizer)(0, grad, table)
    assert not optimizer.get_counts()["num_update"]


@every
def test_a_large_matrix_does_not_grow_with_its_states(row: Row) -> None:
    states = row.make().create_state(0, np.ones((1000, 1000), np.float32))
    assert sum(s.size for s in states[:3]) == 2001
