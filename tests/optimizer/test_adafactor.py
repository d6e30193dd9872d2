"""Adafactor: the paper's algorithm, states of rows and columns, and their sums for matrices of
every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwise import array, assert_runs_agree, assert_same
from table import ROWS, Row

import mxopt
from mxopt.engine import native
from mxopt.engine.matrices import Matrices
from mxopt.errors import ArrayError
from mxopt.sparse import RowSparse, row_sparse_array

SHAPES: list[tuple[int, ...]] = [(4, 5), (7,), (), (2, 3, 4), (0, 3), (1, 1)]
every = pytest.mark.parametrize("row", [row for row in ROWS if row.name == "adafactor"], ids=str)


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
def test_states_are_a_row_and_a_column_for_each_matrix(row: Row) -> None:
    shapes = [s.shape for s in row.make().create_state(0, np.ones((2, 3, 4), np.float32))]
    assert shapes[:2] == [(2, 3, 1), (2, 1, 4)]
    assert [s.shape for s in row.make().create_state(0, np.ones(5, np.float32))][:2] == [(5,), (1,)]
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
    assert sum(s.size for s in states[:2]) == 2000


LONG, SHORT = (2, 65, 70_000), (3000, 3, 5)


@every
@pytest.mark.parametrize(
    "shape", [(70_000, 3), LONG, SHORT, (1, 33_000), (33_000, 1), (2, 3, 1, 1), (300, 70, 1, 1), (700, 700)]
)
def test_matrices_of_every_form(row: Row, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Of several pieces, of several to a piece, of one row or column: both engines' bits, whatever
    the threads."""
    assert (Matrices.of(LONG).records, Matrices.of(SHORT).records) == (2, 1)
    start, grads = array(rng, shape, "float32"), [array(rng, shape, "float32") for _ in range(2)]
    runs = [row.run([start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: [grads[step]], steps=2)


def test_a_list_of_all_of_them_by_any_number_of_threads(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    shapes = [*SHAPES, (70_000, 3), SHORT, (700, 700)]
    start, grads = ([array(rng, shape, "float32") for shape in shapes] for _ in range(2))
    found = []
    for threads in (1, 2, 3):
        mxopt.set_num_threads(threads)
        run = Row("adafactor", beta1=0.5).run([w.copy() for w in start])
        for _ in range(2):
            run.step(grads)
        found.append(run.arrays)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
