"""States in bfloat16: the same bits by the reference, by kernels, in lists and by threads; right on
the average."""

from __future__ import annotations

import enum
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree, assert_same, copied, flat, laid_out
from table import ROWS, Row

import mxopt
from mxopt.engine import native
from mxopt.engine.arrays import BFLOAT16
from mxopt.engine.kernel import PIECE
from mxopt.engine.rounding import Rounding, UpdateKeys
from mxopt.errors import ArrayTypeError
from mxopt.sparse import RowSparse, row_sparse_array

NARROW = [row for row in ROWS if not row.make().rule.wide and row.name != "sgld"]
PRECISIONS = [("float32", False), ("float16", False), ("bfloat16", False), ("float16", True), ("bfloat16", True)]
by_row = pytest.mark.parametrize("row", NARROW, ids=str)
by_precision = pytest.mark.parametrize(("dtype", "master"), PRECISIONS)
pytestmark = pytest.mark.filterwarnings("ignore:.*without multi_precision")


def made(row: Row, **more: Any) -> Any:
    return row.make(state_dtype="bfloat16", **{"seed": 5, **more})


def states_of(run: Run) -> list[np.ndarray]:
    return [x for k in range(len(run.weights)) for x in flat(run.updater.states[k])]


@by_precision
@by_row
def test_both_engines_and_lists_give_the_same_bits(
    row: Row, dtype: str, master: bool, rng: np.random.Generator
) -> None:
    shapes = [(7, 37), (5,), (), (3, 32, 9), (1, 1), (0, 3), (PIECE + 3,)]
    weights = [array(rng, shape, dtype) for shape in shapes]
    runs = [
        Run(made(row, multi_precision=master), copied(weights), engine, as_list)
        for engine in ("numpy", "llvm")
        for as_list in (False, True)
    ]
    assert_runs_agree(runs, lambda step: [array(rng, shape, dtype, special=step == 2) for shape in shapes])
    dtypes = {str(x.dtype) for x in states_of(runs[0])}
    sums = {"float32" if dtype == "bfloat16" else dtype} if row.name == "lbsgd" else set()
    assert dtypes <= {"bfloat16"} | ({"float32"} if master else set()) | sums


@by_row
def test_memory_with_gaps_gives_the_same_bits(row: Row, rng: np.random.Generator) -> None:
    shape = (300, 331)
    weight = array(rng, shape, "float32")
    layouts = ("C", "strided", "reversed", "F", "unaligned")
    runs = [Run(made(row), [laid_out(weight, layout)]) for layout in layouts]
    assert_runs_agree(runs, lambda step: [array(rng, shape, "float32")], steps=2)


@pytest.mark.parametrize("lazy", [True, False])
@by_row
def test_sparse_rows_give_the_same_bits(row: Row, lazy: bool, rng: np.random.Generator) -> None:
    if not row.takes_lazy_update:
        pytest.skip("it has no lazy update")
    shape, master = (90, 23), bool(rng.integers(2))
    dtype = "bfloat16" if master else "float32"
    weight = array(rng, shape, dtype)
    runs = [
        Run(made(row, lazy_update=lazy, multi_precision=master), [kind(weight)], engine)  # type: ignore[list-item]
        for engine in ("numpy", "llvm")
        for kind in (np.copy, _stored)
    ]

    def gradient(step: int) -> list[RowSparse]:
        rows = np.sort(rng.choice(shape[0], 20, replace=False))
        return [row_sparse_array((array(rng, (20, shape[1]), dtype), rows), shape)]

    for step in range(4):
        given = gradient(step)
        for run in runs:
            run.step(given)
    dense = [[_dense(x) for x in flat(run.arrays)] for run in runs]
    for other in dense[1:]:
        assert_same(other, dense[0])


def _stored(weight: np.ndarray) -> RowSparse:
    return row_sparse_array((weight.copy(), np.arange(len(weight))), weight.shape)


def _dense(x: Any) -> np.ndarray:
    return x.todense() if isinstance(x, RowSparse) else x


def test_rows_that_come_later_are_rounded_by_their_number(rng: np.random.Generator) -> None:
    """A row-sparse weight that holds some rows is rounded as the dense one."""
    shape, runs = (1000, 7), []
    for engine in ("numpy", "llvm"):
        runs.append(Run(made(Row("adam")), [row_sparse_array((np.zeros((0, 7), np.float32), []), shape)], engine))  # type: ignore[list-item]
        runs.append(Run(made(Row("adam")), [np.zeros(shape, np.float32)], engine))
    for _ in range(5):
        rows = np.sort(rng.choice(shape[0], 20, replace=False))
        given = [row_sparse_array((array(rng, (20, 7), "float32"), rows), shape)]
        for run in runs:
            run.step(given)
    dense = [[_dense(x) for x in flat(run.arrays)] for run in runs]
    for other in dense[1:]:
        assert_same(other, dense[0])
    assert len(flat(runs[0].arrays)[0].data) < 200


@by_row
def test_threads_cannot_be_seen(row: Row, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PARALLEL", 1)
    weight = array(rng, (5 * PIECE + 7,), "float32")
    grads = [array(rng, weight.shape, "float32") for _ in range(3)]
    found = []
    for threads in (1, 3):
        before = mxopt.get_num_threads()
        mxopt.set_num_threads(threads)
        try:
            run = Run(made(row), [weight.copy()])
            for grad in grads:
                run.step([grad])
            found.append(run.arrays)
        finally:
            mxopt.set_num_threads(before)
    assert_same(*found)  # type: ignore[arg-type]


def test_a_slice_is_rounded_as_in_the_whole(rng: np.random.Generator) -> None:
    rounding = Rounding("w", lambda: 3, lambda: 7)
    x = array(rng, (40, 5), "float32")
    whole = rounding.rounded(x, rounding.weyl(x.shape), 1)
    part, rows = rounding.at(10 * 5), np.array([3, 8, 39])
    np.testing.assert_array_equal(part.rounded(x[10:], part.weyl(x[10:].shape), 1), whole[10:])
    some = rounding.of_rows(rows)
    np.testing.assert_array_equal(some.rounded(x[rows], some.weyl(x[rows].shape), 1), whole[rows])


def test_another_seed_key_update_or_array_is_rounded_otherwise() -> None:
    x = np.full(1000, 1.001, np.float32)

    def rounded(key: Any = 0, update: int = 1, seed: int = 2, number: int = 0) -> np.ndarray:
        rounding = Rounding(key, lambda: update, lambda: seed)
        return rounding.rounded(x, rounding.weyl(x.shape), number).astype(np.float32)

    assert (rounded() == rounded()).all()
    others = [
        rounded(key="0"),
        rounded(key=1),
        rounded(update=2),
        rounded(seed=3),
        *(rounded(number=n) for n in (1, 2, 3)),
    ]
    for other in others:
        assert 100 < (other != rounded()).sum() < 400  # 1.001 is a quarter of the way: 375 expected


class Name(str, enum.Enum):
    W = "w"


@pytest.mark.parametrize(("key", "equal"), [(np.int64(3), 3), (np.str_("w"), "w"), (Name.W, "w"), (True, 1)])
def test_keys_that_are_equal_are_rounded_alike(key: Any, equal: int | str, rng: np.random.Generator) -> None:
    grads, found = [array(rng, (500,), "float32") for _ in range(2)], []
    for each in (key, equal):
        updater, weight = mxopt.get_updater(mxopt.create("adam", state_dtype="bfloat16")), np.ones(500, np.float32)
        for g in grads:
            updater(each, g, weight)
        found.append(flat(updater.states[equal]))
    assert_same(*found)  # type: ignore[arg-type]


def test_keys_of_many_are_those_of_each() -> None:
    roundings = [Rounding(key, lambda k=k: k, lambda: 11) for k, key in enumerate([0, "a", 17])]  # type: ignore[arg-type, misc]
    assert UpdateKeys(roundings).now().tolist() == [int(UpdateKeys([r]).now()[0]) for r in roundings]


def test_rounding_is_right_on_the_average_and_exact_where_it_can_be(rng: np.random.Generator) -> None:
    rounding = Rounding(0, lambda: 1, lambda: 1)
    for value in (1.001, -3.1415927, 1e-20):
        x = np.full(2**20, value, np.float32)
        found = rounding.rounded(x, rounding.weyl(x.shape), 0).astype(np.float64)
        step = np.ptp(found)
        assert len(np.unique(found)) == 2
        assert abs(found.mean() - x[0]) < 5 * step / 2 / np.sqrt(x.size)
    held = array(rng, 1000, "bfloat16", special=True)
    assert_same([rounding.rounded(held.astype(np.float32), rounding.weyl(held.shape), 0)], [held])


def test_a_nan_stays_one_whatever_it_carries() -> None:
    x = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    rounding = Rounding(0, lambda: 1, lambda: 1)
    assert np.isnan(rounding.rounded(x, rounding.weyl(x.shape), 0).astype(np.float32)).all()


def test_small_increments_are_not_lost() -> None:
    """What rounding to nearest gets stuck on: a running mean square whose share of the new is below
    half a step."""
    run = Run(mxopt.create("adam", state_dtype="bfloat16", seed=1, beta2=0.999), [np.zeros(4096, np.float32)])
    exact = Run(mxopt.create("adam", beta2=0.999), [np.zeros(4096, np.float32)])
    for size in (1.0, 0.1):
        for _ in range(1500):
            grad = np.full(4096, size, np.float32)
            run.step([grad])
            exact.step([grad])
    var, wanted = run.updater.states[0][1].astype(np.float64), exact.updater.states[0][1]
    assert abs(var.mean() / wanted.mean() - 1) < 0.01


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_narrow_states_without_stochastic_rounding_are_refused(dtype: str) -> None:
    optimizer = mxopt.create("sgd", momentum=0.9)
    weight = np.ones(3, dtype)
    state = np.zeros(3, BFLOAT16)
    with pytest.raises(ArrayTypeError, match=r"velocity of bfloat16.*state_dtype='bfloat16'"):
        optimizer.update(0, weight, weight.copy(), state)
    assert (weight == 1).all()
    assert optimizer.count(0) is None


def test_wide_states_with_stochastic_rounding_are_refused() -> None:
    optimizer = mxopt.create("sgd", momentum=0.9, state_dtype="bfloat16")
    weight = np.ones(3, np.float32)
    with pytest.raises(ArrayTypeError, match="velocity is of float32"):
        optimizer.update(0, weight, weight.copy(), np.zeros(3, np.float32))


def test_bfloat16_weights_without_a_master_move_by_less_than_half_a_step() -> None:
    weight = np.ones(10_000, ml_dtypes.bfloat16)
    optimizer = mxopt.create("sgd", learning_rate=1e-4, state_dtype="bfloat16", seed=2)
    updater = mxopt.get_updater(optimizer)
    for _ in range(100):
        updater(0, np.ones(10_000, ml_dtypes.bfloat16), weight)
    assert abs(weight.astype(np.float64).mean() - 0.99) < 1e-4
