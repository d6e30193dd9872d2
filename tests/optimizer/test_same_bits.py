"""The same bits however an update is run: threads, lists, slices, forks."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree, assert_same, flat
from table import ROWS, Row

import mxopt
from mxopt.engine import jit, native
from mxopt.sparse import row_sparse_array

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")
SHAPES = [(40000,), (300, 333), (17,), (2, 16385)]


@pytest.fixture
def always_threads(monkeypatch: pytest.MonkeyPatch, restore_threads: None) -> None:
    """Small arrays are shared among threads too."""
    monkeypatch.setattr(native, "PARALLEL", 0)


@pytest.mark.usefixtures("always_threads")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_any_number_of_threads(row: Row) -> None:
    results = []
    for threads in (1, 2, 3, 5):
        mxopt.set_num_threads(threads)
        rng = np.random.default_rng(1)
        run = Run(row.make(), [array(rng, shape, "float32") for shape in SHAPES], as_list=True)
        for _ in range(2):
            run.step([array(rng, shape, "float32") for shape in SHAPES])
        results.append(run.arrays)
    for result in results[1:]:
        assert_same(result, results[0])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_aggregation_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    for row in ROWS:
        start = [array(rng, (n,), "float32") for n in (5, 100, 17, 33, 1)]
        whole = Run(row.make(), [w.copy() for w in start], as_list=True)
        monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", str(size))
        parts = Run(row.make(), [w.copy() for w in start], as_list=True)
        assert parts.updater.optimizer.aggregate_num == size
        monkeypatch.undo()
        assert_runs_agree([whole, parts], lambda step, like=start: [array(rng, w.shape, "float32") for w in like])  # type: ignore[misc]


@pytest.mark.parametrize("row", [r for r in ROWS if r.elementwise], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_slices_of_an_array(row: Row, dtype: str) -> None:
    rng = np.random.default_rng(3)
    start, bounds = array(rng, (20001,), dtype), [0, 5, 5, 16384 + 3, 20000, 20001]
    cut = lambda x: [x[a:b] for a, b in itertools.pairwise(bounds)]  # noqa: E731
    whole = Run(row.make(multi_precision=True), [start.copy()])
    parts = Run(row.make(multi_precision=True), cut(start.copy()))  # type: ignore[no-untyped-call]
    for _ in range(3):
        grad = array(rng, start.shape, dtype, special=True)
        whole.step([grad])
        parts.step(cut(grad))  # type: ignore[no-untyped-call]
    pieces = [flat(state) for state in zip(*(flat([a, s]) for a, s in _by_parameter(parts)), strict=True)]
    assert_same(flat(whole.arrays), [np.concatenate(p) for p in pieces])


def _by_parameter(run: Run) -> list[tuple[np.ndarray, Any]]:
    return [(w, run.updater.states[i]) for i, w in enumerate(run.weights)]


def test_a_parameter_several_times_in_a_list() -> None:
    for row in ROWS:
        rng = np.random.default_rng(4)
        start, grads = array(rng, (50, 3), "float32"), [array(rng, (50, 3), "float32") for _ in range(3)]
        single, listed = mxopt.get_updater(row.make()), mxopt.get_updater(row.make())
        one, other = start.copy(), start.copy()
        for grad in grads:
            single(0, grad, one)
        listed([0, 0, 0], grads, [other] * 3)
        assert_same([other, listed.states[0]], [one, single.states[0]], str(row))


@pytest.mark.usefixtures("always_threads")
def test_weights_of_a_list_that_share_memory() -> None:
    mxopt.set_num_threads(3)
    for row in (Row("sgd", momentum=0.9), Row("adam"), Row("lamb")):
        rng = np.random.default_rng(6)
        memories = [array(np.random.default_rng(7), (200_000,), "float32") for _ in range(2)]
        runs = [Run(row.make(), [m[:150_000], m[50_000:], m[::2]], as_list=k == 0) for k, m in enumerate(memories)]
        like = runs[0].weights
        assert_runs_agree(runs, lambda step, like=like, rng=rng: [array(rng, w.shape, "float32") for w in like])  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0), (2, 0, 3)])
def test_arrays_without_elements(shape: tuple[int, ...]) -> None:
    for row in ROWS:
        for grad in (np.zeros(shape, np.float32), row_sparse_array((np.zeros((0, *shape[1:]), np.float32), []), shape)):
            run = Run(row.make(), [np.zeros(shape, np.float32), np.ones(2, np.float32)], as_list=True)
            run.step([grad, np.ones(2, np.float32)])
            run.as_list = False
            run.step([grad, np.ones(2, np.float32)])
            assert run.updater.optimizer._index_update_count == {0: 2, 1: 2}


@pytest.mark.usefixtures("always_threads")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on() -> None:
    mxopt.set_num_threads(3)
    for row in (Row("adam"), Row("lamb")):
        rng = np.random.default_rng(5)
        run = Run(row.make(), [array(rng, shape, "float32") for shape in SHAPES], as_list=True)
        grads = [[array(rng, shape, "float32") for shape in SHAPES] for _ in range(2)]
        run.step(grads[0])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run.step(grads[1])
                with os.fdopen(writing, "wb") as pipe:
                    pickle.dump(flat(run.arrays), pipe)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            theirs = pickle.load(pipe)
        assert os.waitpid(child, 0)[1] == 0
        run.step(grads[1])
        assert_same(theirs, flat(run.arrays), str(row))


@pytest.mark.usefixtures("always_threads")
@pytest.mark.parametrize(
    "row",
    [Row("sgd", momentum=0.9), Row("nadam"), Row("sgld", seed=1), Row("lamb"), Row("lbsgd", batch_scale=2)],
    ids=str,
)
def test_threads_with_weights_of_their_own(row: Row) -> None:
    mxopt.set_num_threads(2)
    jit.compiled.cache_clear()  # they meet in the compiler too
    start = {i: array(np.random.default_rng(i), (30_000 + i,), "float32") for i in range(4)}
    alone, together = mxopt.get_updater(row.make()), mxopt.get_updater(row.make())
    expected, weights = {i: w.copy() for i, w in start.items()}, {i: w.copy() for i, w in start.items()}
    barrier, failed = threading.Barrier(4), []

    def grad(i: int, step: int) -> np.ndarray:
        return array(np.random.default_rng(100 * i + step), start[i].shape, "float32")

    def work(i: int) -> None:
        try:
            barrier.wait()
            for step in range(30):
                if step % 2:
                    together(i, grad(i, step), weights[i])
                else:
                    together([i], [grad(i, step)], [weights[i]])
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in start]
    for worker in workers:
        worker.start()
    for i, weight in expected.items():
        for step in range(30):
            alone(i, grad(i, step), weight)
    for worker in workers:
        worker.join()
    assert not failed
    assert together.optimizer.num_update == 30
    assert_same([*weights.values()], [*expected.values()])
    assert_same([together.states[i] for i in start], [alone.states[i] for i in start])
