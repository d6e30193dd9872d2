"""CuPy arrays: the CUDA engine gives the bits of the reference, on a GPU, and without one on the
CPU.

Every test runs twice: with CuPy where there is a GPU, and with `cuda_on_cpu`, which runs the same
kernels.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import cuda_kernels
import cuda_on_cpu
import numpy as np
import pytest
from bitwise import Run, array, assert_same, flat
from cuda_kernels import NARROW
from table import CROSSED, ROWS, Row, crossed_id

import mxopt
from mxopt.device import to_host
from mxopt.engine.arrays import data_of
from mxopt.engine.cuda import compiled
from mxopt.engine.kernel import PIECE
from mxopt.errors import ArrayError, ArrayTypeError
from mxopt.sparse import RowSparse, row_sparse_array

pytestmark = pytest.mark.filterwarnings("ignore:.*without multi_precision")
SHAPES = [(7, 37), (5,), (3, 32, 9), (1, 1), (0, 3)]


@pytest.fixture(scope="session")
def cupy_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> cuda_on_cpu.CuPy:
    if not shutil.which("g++"):
        pytest.skip("there is no g++ here")
    folder = tmp_path_factory.mktemp("kernels")
    return cuda_on_cpu.CuPy(cuda_on_cpu.compile_all(cuda_kernels.sources(2), folder), folder)


def gpus() -> int:
    """How many GPUs there are, without importing CuPy."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


@pytest.fixture(params=["cpu", *[pytest.param("gpu", marks=pytest.mark.gpu)] * (gpus() > 0)])
def cupy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    gpu = request.param == "gpu"
    module = pytest.importorskip("cupy") if gpu else request.getfixturevalue("cupy_on_cpu")
    monkeypatch.setitem(sys.modules, "cupy", module)
    compiled.cache_clear()
    yield module
    compiled.cache_clear()


@pytest.mark.gpu
def test_there_is_a_gpu() -> None:
    if not gpus():
        pytest.skip("there is no GPU here: the kernels ran on the CPU only")


def on_gpu(cupy: Any, x: Any) -> Any:
    """A copy of a NumPy array or of a RowSparse."""
    if isinstance(x, RowSparse):
        return row_sparse_array((cupy.asarray(x.data), cupy.asarray(x.indices)), shape=x.shape)
    return cupy.asarray(x)


def strided(cupy: Any, x: np.ndarray) -> Any:
    """The same as a view of every other element of a CuPy array, backwards."""
    wide = cupy.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    view = wide[::-1, ::2]
    view[...] = cupy.asarray(x)
    return view


def strided_or_sparse(cupy: Any, x: Any) -> Any:
    return on_gpu(cupy, x) if isinstance(x, RowSparse) else strided(cupy, x)


def on_cpu(x: Any) -> list[np.ndarray]:
    """The arrays of a state as dense arrays of NumPy's."""
    dense = [a.todense() if isinstance(a, RowSparse) else a for a in flat(x)]
    return [a if isinstance(a, np.ndarray) else a.get() for a in dense]


def assert_agrees(
    cupy: Any, row: Row, weights: Any, grads: Any, *, to_gpu: Any = on_gpu, as_list: bool = False, **options: Any
) -> None:
    """CuPy arrays have the reference's bits after every step; `grads` has a list for each step."""
    reference = Run(row.make(**options), [w.copy() for w in weights], "numpy", as_list)
    ours = Run(row.make(**options), [to_gpu(cupy, w) for w in weights], "numpy", as_list)
    for step, given in enumerate(grads):
        reference.step(given)
        ours.step([to_gpu(cupy, g) for g in given])
        assert_same(on_cpu(ours.arrays), on_cpu(reference.arrays), f"step {step + 1}")


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_lists(cupy: Any, rng: np.random.Generator, row: Row, dtype: str, master: bool) -> None:
    weights = [array(rng, shape, dtype) for shape in SHAPES]
    grads = [[array(rng, shape, dtype, special=step == 2) for shape in SHAPES] for step in range(3)]
    assert_agrees(cupy, row, weights, grads, multi_precision=master, as_list=True)


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_weights_that_are_not_finite(cupy: Any, rng: np.random.Generator, row: Row, dtype: str, master: bool) -> None:
    """And with them, from the second step on, states."""
    weights = [array(rng, shape, dtype, special=True) for shape in SHAPES]
    grads = [[array(rng, shape, dtype) for shape in SHAPES] for _ in range(3)]
    assert_agrees(cupy, row, weights, grads, multi_precision=master, as_list=True)


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "standard"])
@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
def test_row_sparse_gradients(
    cupy: Any, rng: np.random.Generator, row: Row, dtype: str, master: bool, lazy: bool
) -> None:
    if lazy and not row.takes_lazy_update:
        pytest.skip("takes no lazy_update")
    options = {"lazy_update": lazy} if row.takes_lazy_update else {}
    rows = [np.flatnonzero(rng.random(9) < share) for share in (0.5, 1, 0)]
    grads = [[row_sparse_array((array(rng, (len(r), 41), dtype), r), shape=(9, 41))] for r in rows]
    assert_agrees(cupy, row, [array(rng, (9, 41), dtype)], grads, multi_precision=master, **options)


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "standard"])
@pytest.mark.parametrize("row", [row for row in ROWS if not row.dense], ids=str)
def test_row_sparse_weights(cupy: Any, rng: np.random.Generator, row: Row, lazy: bool) -> None:
    options = {"lazy_update": lazy} if row.takes_lazy_update else {}
    steps = [[1, 4], [4], [0, 2, 8], []]
    grads = [[row_sparse_array((array(rng, (len(r), 41), "float16"), r), shape=(9, 41))] for r in steps]
    weight = row_sparse_array((array(rng, (3, 41), "float16"), [1, 4, 5]), shape=(9, 41))
    assert_agrees(cupy, row, [weight], grads, multi_precision=True, **options)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_tensors_of_several_pieces(cupy: Any, rng: np.random.Generator, row: Row) -> None:
    shape = (2, PIECE + 13)  # in double, where the order of a norm's sums shows
    assert_agrees(cupy, row, [array(rng, shape, "float64")], [[array(rng, shape, "float64")]] * 2)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_strided_views(cupy: Any, rng: np.random.Generator, row: Row) -> None:
    grads = [[array(rng, (6, 10), "float32")] for _ in range(2)]
    assert_agrees(cupy, row, [array(rng, (6, 10), "float32")], grads, to_gpu=strided)


@pytest.mark.parametrize(("dtype", "master"), NARROW)
@pytest.mark.parametrize("row", [row for row in ROWS if not row.make().rule.wide and row.name != "sgld"], ids=str)
def test_states_in_bfloat16(cupy: Any, rng: np.random.Generator, row: Row, dtype: str, master: bool) -> None:
    """In lists, by rows that a gradient has, in strided views, and in row-sparse weights."""
    shapes = [(7, 37), (2, PIECE + 13)]
    options = {"state_dtype": "bfloat16", "seed": 3, "multi_precision": master}
    grads = [[array(rng, shape, dtype, special=step == 1) for shape in shapes] for step in range(2)]
    assert_agrees(cupy, row, [array(rng, shape, dtype) for shape in shapes], grads, as_list=True, **options)
    if row.takes_lazy_update:
        options["lazy_update"] = True
    rows = [[1, 4], [4], [0, 2, 8], []]
    grads = [[row_sparse_array((array(rng, (len(r), 41), dtype), r), shape=(9, 41))] for r in rows]  # type: ignore[list-item]
    weight = row_sparse_array((array(rng, (3, 41), dtype), [1, 4, 5]), shape=(9, 41))
    assert_agrees(cupy, row, [weight.todense()], grads, to_gpu=strided_or_sparse, **options)  # type: ignore[arg-type]
    assert_agrees(cupy, row, [weight], grads, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_long_rows(cupy: Any, rng: np.random.Generator, dtype: str) -> None:
    grads = [[row_sparse_array((array(rng, (2, 3000), dtype), [4, 1]), shape=(6, 3000))]]
    for row in (Row("adam"), Row("groupadagrad")):
        assert_agrees(cupy, row, [array(rng, (6, 3000), dtype)], grads)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_number(cupy: Any, rng: np.random.Generator, dtype: str) -> None:
    numbers = np.arange(65536, dtype=np.uint16).view(dtype)
    grads = [[rng.permutation(numbers)] for _ in range(4)]
    assert_agrees(cupy, Row("test"), [numbers], grads)
    assert_agrees(cupy, Row("sgd", learning_rate=0.5), [numbers], grads, multi_precision=True)


@pytest.mark.parametrize("rows", [[3, 1, 3, 3], [0, 2], []])
def test_row_sparse_arrays_of_cupy_are_those_of_numpy(cupy: Any, rng: np.random.Generator, rows: list[int]) -> None:
    data, indices = array(rng, (len(rows), 5), "float32"), np.array(rows, np.int64)
    expected = row_sparse_array((data, indices), shape=(4, 5))
    ours = row_sparse_array((cupy.asarray(data), cupy.asarray(indices)), shape=(4, 5))
    assert_same(on_cpu([ours.data, ours.indices]), [expected.data, expected.indices])
    assert_same(on_cpu([ours.todense()]), [expected.todense()])


def test_a_list_is_one_launch(cupy: Any, rng: np.random.Generator) -> None:
    if not isinstance(cupy, cuda_on_cpu.CuPy):
        pytest.skip("launches are counted on the CPU only")
    weights = [cupy.asarray(array(rng, shape, "float32")) for shape in SHAPES]
    before = cupy.launches
    Run(Row("adam").make(), weights, as_list=True).step([w.copy() for w in weights])
    assert cupy.launches == before + 1


def test_one_list_may_have_arrays_of_both_kinds(cupy: Any, rng: np.random.Generator) -> None:
    start = [array(rng, shape, "float32") for shape in SHAPES]
    mixed = Run(Row("adam").make(), [cupy.asarray(start[0]), start[1].copy(), cupy.asarray(start[2])], as_list=True)
    reference = Run(Row("adam").make(), start[:3], as_list=True)
    for _ in range(2):
        grads = [array(rng, shape, "float32") for shape in SHAPES[:3]]
        reference.step(grads)
        mixed.step([cupy.asarray(grads[0]), grads[1], cupy.asarray(grads[2])])
    ours = [x.get() if hasattr(x, "get") else x for x in flat(mixed.arrays)]
    assert_same(ours, reference.arrays)


def test_saved_states_come_back_to_the_gpu(cupy: Any, rng: np.random.Generator) -> None:
    start, grads = array(rng, (5, 6), "float32"), [[array(rng, (5, 6), "float32")] for _ in range(4)]
    reference = Run(Row("adam").make(), [start.copy()])
    run = Run(Row("adam").make(), [cupy.asarray(start)])
    for step, given in enumerate(grads):
        reference.step(given)
        if step == 2:
            saved = run.updater.get_states()
            run = Run(Row("adam").make(), run.weights)
            run.updater.set_states(saved)
        run.step([cupy.asarray(given[0])])
    assert_same(on_cpu(run.arrays), reference.arrays)


# What can't work is refused, and nothing is changed.

REFUSED = {
    "a NumPy gradient": (
        lambda cupy, w: np.ones((3, 4), np.float32),
        ArrayTypeError,
        "the weight is on GPU 0, the grad",
    ),
    "a NumPy RowSparse": (
        lambda cupy, w: row_sparse_array((np.ones((1, 4), np.float32), [1]), shape=(3, 4)),
        ArrayTypeError,
        "the weight is on GPU 0, the gradient on the CPU",
    ),
    "another shape": (
        lambda cupy, w: cupy.zeros((4, 3), np.float32),
        ArrayError,
        r"shape \(3, 4\), the gradient \(4, 3\)",
    ),
    "another dtype": (lambda cupy, w: cupy.zeros((3, 4), np.int32), ArrayTypeError, "can't take a gradient of int32"),
    "the weight itself": (lambda cupy, w: w, ArrayError, "shares memory with the weight"),
    "a view of the weight": (lambda cupy, w: w[::-1], ArrayError, "shares memory with the weight"),
    "rows out of range": (
        lambda cupy, w: RowSparse(cupy.zeros((1, 4), np.float32), cupy.asarray(np.array([3])), (3, 4)),
        ArrayError,
        "row indices .* ascending and within 0 to 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(cupy: Any, case: str) -> None:
    make, error, message = REFUSED[case]
    weight = cupy.asarray(np.ones((3, 4), np.float32))
    optimizer = Row("adam").make()
    state = optimizer.create_state(0, weight)
    optimizer.update(0, weight, cupy.asarray(np.zeros((3, 4), np.float32)), state)  # so that there is a plan
    before = on_cpu([weight, *state])
    with pytest.raises(error, match=f"parameter 0: .*{message}"):
        optimizer.update(0, weight, make(cupy, weight), state)  # type: ignore[no-untyped-call]
    assert_same(on_cpu([weight, *state]), before)


def test_a_cupy_gradient_or_state_of_a_numpy_weight_is_refused(cupy: Any) -> None:
    weight, there = np.ones(3, np.float32), cupy.zeros(3, np.float32)
    sgd, momentum = Row("sgd").make(), Row("sgd", momentum=0.9).make()
    with pytest.raises(ArrayTypeError, match="parameter 0: the weight is on the CPU, the gradient on GPU 0"):
        sgd.update(0, weight, there, None)
    with pytest.raises(ArrayTypeError, match="parameter 0: the weight is on the CPU, velocity on GPU 0"):
        momentum.update(0, weight, np.ones(3, np.float32), there)
    with pytest.raises(ArrayTypeError, match="indices are on a GPU, the data is not"):
        row_sparse_array((np.ones((1, 2)), cupy.asarray(np.array([0]))), shape=(3, 2))
    assert weight.tolist() == [1, 1, 1]


def test_clipping_by_the_norm_of_all(cupy: Any, rng: np.random.Generator) -> None:
    """On the GPU, and with some of the arrays there: the CPU's bits."""
    arrays = [
        array(rng, shape, dtype) for shape in (*SHAPES, (3, PIECE)) for dtype in ("float16", "float32", "float64")
    ]
    arrays.append(row_sparse_array((array(rng, (2, 3), "float32"), [1, 4]), shape=(6, 3)))  # type: ignore[arg-type]
    given = [on_gpu(cupy, x) for x in arrays]
    mixed = [on_gpu(cupy, x) if k % 2 else x.copy() for k, x in enumerate(arrays)]
    given[0], mixed[1] = strided(cupy, arrays[0]), strided(cupy, arrays[1])
    norm = mxopt.clip_global_norm(arrays, 1.5)
    assert mxopt.clip_global_norm(given, 1.5) == norm == mxopt.clip_global_norm(mixed, 1.5)
    for some in (given, mixed):
        assert_same([data_of(x) for x in arrays], [to_host(data_of(x)) for x in some])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_moving_averages(cupy: Any, rng: np.random.Generator, dtype: str) -> None:
    weights = [array(rng, shape, dtype) for shape in SHAPES]
    theirs = [on_gpu(cupy, w) for w in weights]
    theirs[0] = strided(cupy, weights[0])
    ours, averages = mxopt.ExponentialMovingAverage(theirs, 0.9), mxopt.ExponentialMovingAverage(weights, 0.9)
    for _ in range(2):
        for weight, copy in zip(weights, theirs, strict=True):
            weight[...] = array(rng, weight.shape, dtype)
            copy[...] = cupy.asarray(weight)
        averages.update()
        ours.update()
        assert_same([a.get() for a in ours.averages.values()], averages.averages.values())
    ours.set_states(averages.get_states())
    with ours.applied(), averages.applied():
        assert_same([w.get() for w in theirs], weights)
