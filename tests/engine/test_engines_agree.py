"""The llvm engine gives the very bits of the rule run on NumPy arrays: every optimizer, precision,
form and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree, assert_same, laid_out
from table import CROSSED, ROWS, Row, crossed_id

from mxopt.sparse import row_sparse_array

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")
SIZES = [0, 1, 15, 16, 17, 16384, 16385, 40000, 70001]
LAYOUTS = ["C", "F", "strided", "reversed", "unaligned"]


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_lists_of_odd_sizes(row: Row, dtype: str, master: bool) -> None:
    rng = np.random.default_rng(1)
    shapes = [(n,) for n in SIZES]
    weights = [array(rng, shape, dtype) for shape in shapes]
    runs = [
        Run(row.make(multi_precision=master), [w.copy() for w in weights], engine, as_list)
        for engine, as_list in (("numpy", False), ("llvm", True))
    ]
    assert_runs_agree(runs, lambda step: [array(rng, shape, dtype) for shape in shapes], steps=2)


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_special_values(row: Row, dtype: str, master: bool) -> None:
    rng = np.random.default_rng(2)
    weights = [array(rng, (40, 7), dtype), array(rng, (3, 100), dtype, special=True)]
    runs = [
        Run(row.make(multi_precision=master), [w.copy() for w in weights], engine, as_list)
        for engine in ("numpy", "llvm")
        for as_list in (False, True)
    ]
    assert_runs_agree(runs, lambda step: [array(rng, w.shape, dtype, special=True) for w in weights], steps=4)


# Rows that have a lazy form come with and without it.
SPARSE = [(*case, lazy) for case in CROSSED for lazy in ((True, False) if case[0].takes_lazy_update else (False,))]


@pytest.mark.parametrize("row", [row for row in ROWS if row.make().rule.layerwise], ids=str)
def test_norms_that_overflow(row: Row) -> None:
    start = array(np.random.default_rng(7), (40000,), "float64")
    for huge in (1e153, 1e154, 1e300):
        runs = [Run(row.make(), [start * huge], engine) for engine in ("numpy", "llvm")]
        assert_runs_agree(runs, lambda step, huge=huge: [start * huge])  # type: ignore[misc]


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_weights_that_are_not_finite(row: Row, dtype: str, master: bool) -> None:
    """And with them, from the second step on, states."""
    rng = np.random.default_rng(9)
    start = array(rng, (40, 7), dtype, special=True)
    runs = [Run(row.make(multi_precision=master), [start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: [array(rng, start.shape, dtype)])


@pytest.mark.parametrize(("row", "dtype", "master", "lazy"), SPARSE, ids=crossed_id)
def test_row_sparse_gradients(row: Row, dtype: str, master: bool, lazy: bool) -> None:
    rng = np.random.default_rng(3)
    shapes = [(4200, 17), (30, 2, 3)]
    options = {"lazy_update": lazy} if row.takes_lazy_update else {}
    weights = [array(rng, shape, dtype) for shape in shapes]
    runs = [
        Run(row.make(multi_precision=master, **options), [w.copy() for w in weights], engine, as_list)
        for engine, as_list in (("numpy", False), ("llvm", False), ("llvm", True))
    ]

    def grads(step: int) -> list[Any]:
        rows = [np.sort(rng.choice(n, k, replace=False)) for (n, *_), k in zip(shapes, (400, 5 * step), strict=True)]
        return [
            row_sparse_array((array(rng, (len(r), *shape[1:]), dtype, special=step == 1), r), shape=shape)
            for r, shape in zip(rows, shapes, strict=True)
        ]

    assert_runs_agree(runs, grads, steps=2)


@pytest.mark.parametrize("row", [r for r in ROWS if r.make().rule.layerwise and r.takes_lazy_update], ids=str)
@pytest.mark.parametrize("shape", [(70001,), (4099, 8), (2100, 16), (1500, 23), (9, 10000), (3, 40000)])
def test_norms_of_some_rows(row: Row, shape: tuple[int, ...]) -> None:
    """Rows shorter and longer than a vector and than a piece, that begin anywhere in them."""
    rng = np.random.default_rng(8)
    start = array(rng, shape, "float32")
    rows = [np.flatnonzero(rng.random(shape[0]) < share) for share in (0.05, 0.5, 1, 0)]
    grads = [[row_sparse_array((array(rng, (len(r), *shape[1:]), "float32"), r), shape=shape)] for r in rows]
    runs = [Run(row.make(lazy_update=True), [start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: grads[step], steps=4)


@pytest.mark.parametrize(("row", "dtype", "master"), [c for c in CROSSED if c[0].make().rule.by_row], ids=crossed_id)
def test_rows_with_states(row: Row, dtype: str, master: bool) -> None:
    """Short and long ones, whose kernels differ; one alone, and more than a piece has."""
    rng = np.random.default_rng(9)
    shapes = [(1, 16), (3000, 16), (700, 64), (150, 255), (150, 256), (150, 257), (40, 1030), (3, 20000)]
    weights = [array(rng, shape, dtype) for shape in shapes]
    runs = [Run(row.make(multi_precision=master), [w.copy() for w in weights], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: [array(rng, shape, dtype, special=step == 1) for shape in shapes], steps=2)
    rows = [np.sort(rng.choice(n, max(n // 3, 1), replace=False)) for n, _ in shapes]
    grads = [
        row_sparse_array((array(rng, (len(r), *shape[1:]), dtype), r), shape=shape)
        for r, shape in zip(rows, shapes, strict=True)
    ]
    assert_runs_agree(runs, lambda step: grads, steps=2)


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_layouts(row: Row, dtype: str) -> None:
    rng = np.random.default_rng(4)
    start = array(rng, (50, 33), dtype)
    runs = [
        Run(row.make(), [laid_out(start, layout) for layout in LAYOUTS], engine, as_list)
        for engine, as_list in (("numpy", False), ("llvm", False), ("llvm", True))
    ]
    for turn in range(len(LAYOUTS)):  # a weight of one layout meets gradients of all
        grad = array(rng, start.shape, dtype)
        grads = [laid_out(grad, LAYOUTS[k - turn]) for k in range(len(LAYOUTS))]
        assert_runs_agree(runs, lambda step, grads=grads: grads, steps=1)  # type: ignore[misc]
        if row.name != "sgld":  # whose noise is each parameter's own
            assert_same(runs[0].weights, [runs[0].weights[0]] * len(LAYOUTS))


@pytest.mark.parametrize("row", [r for r in ROWS if r.name != "groupadagrad"], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrays_without_dimensions(row: Row, dtype: str) -> None:
    rng = np.random.default_rng(5)
    start = array(rng, (), dtype)
    runs = [Run(row.make(multi_precision=True), [start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: [array(rng, (), dtype)], steps=5)


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize(
    ("weight", "grad"),
    [("float64", "bfloat16"), ("float64", "float32"), ("bfloat16", "float32"), ("float16", "bfloat16")],
)
def test_gradients_of_another_dtype(row: Row, weight: str, grad: str) -> None:
    rng = np.random.default_rng(6)
    start = array(rng, (9, 5), weight)
    runs = [Run(row.make(multi_precision=True), [start.copy()], engine) for engine in ("numpy", "llvm")]
    assert_runs_agree(runs, lambda step: [array(rng, start.shape, grad)])
