"""Lion: the paper's algorithm, in every precision, by itself and in lists, stores and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import mxopt
from mxopt.sparse import row_sparse_array

RATE, DECAY, BETA1, BETA2 = 0.01, 0.125, 0.75, 0.5


def papers(weight: np.ndarray, grads: list[np.ndarray]) -> np.ndarray:
    """Algorithm 2 of arXiv:2302.06675 in double."""
    weight, momentum = weight.astype(np.float64), np.zeros(weight.shape)
    for grad in grads:
        update = np.sign(BETA1 * momentum + (1 - BETA1) * grad)
        weight = weight - RATE * (update + DECAY * weight)
        momentum = BETA2 * momentum + (1 - BETA2) * grad
    return weight


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-15), ("float32", 1e-6), ("float16", 1e-2)])
@pytest.mark.filterwarnings("ignore:.*without multi_precision")
def test_lion_is_the_papers(dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((7, 5)).astype(dtype)
    grads = [rng.standard_normal(weight.shape).astype(dtype) for _ in range(6)]
    expected = papers(weight, grads)
    updater = mxopt.get_updater(mxopt.create("lion", learning_rate=RATE, wd=DECAY, beta1=BETA1, beta2=BETA2))
    for grad in grads:
        updater(0, grad, weight)
    assert np.abs(weight - expected).max() < tolerance * np.abs(expected).max()


def test_a_step_is_of_one_size_and_zero_where_the_gradient_is() -> None:
    weight = np.zeros(4, np.float32)
    mxopt.get_updater(mxopt.create("lion"))(0, np.array([1, -1, 0, 2], np.float32), weight)
    assert weight.tolist() == [-np.float32(1e-4), np.float32(1e-4), 0, -np.float32(1e-4)]


def test_lazy_lion_leaves_rows_without_a_gradient_alone() -> None:
    for lazy, moved in ((True, [False, True, False]), (False, [True, True, True])):
        weight = np.ones((3, 2), np.float32)
        optimizer = mxopt.create("lion", wd=0.5, lazy_update=lazy)
        mxopt.get_updater(optimizer)(0, row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2)), weight)
        assert (weight != 1).all(axis=1).tolist() == moved
