"""Optimizers of groups on CuPy arrays (`cuda_on_cpu`, which runs the same kernels): NumPy's bits;
launches by dtype, not by tensor. For what `create` makes see `engine/test_cuda.py`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import cuda_on_cpu
import numpy as np
import pytest
from bitwise import array, assert_same, flat
from table import GROUPED, Grouped

from mxopt.device import to_host
from mxopt.engine.cuda import compiled
from mxopt.engine.cuda_source import COMMON, HALF, definition
from mxopt.engine.kernel import REDUCES, Kernel
from mxopt.rules.rule import by_element

F32, F64 = "float32", "float64"
SHAPES = (5,), (3, 4), (), (2, 1, 3), (0, 2), (40,)
every = pytest.mark.parametrize("row", GROUPED, ids=str)


def normal(seed: int, *dtypes: str) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [array(rng, shape, dtype) for dtype in dtypes or (F32,) for shape in SHAPES]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> cuda_on_cpu.CuPy:
    if not shutil.which("g++"):
        pytest.skip("there is no g++ here")
    folder = tmp_path_factory.mktemp("kernels")
    kernels = []
    for rule in {rule.name: rule for row in GROUPED for rule in row.rules}.values():
        for own in {rule, by_element(rule) if rule.reduction else rule}:
            for dtype in (F32, F64):
                dtypes = (dtype,) * (2 + len(own.states))
                kernels += [Kernel(own, stage, dtypes) for stage in range(len(own.stages))]
                kernels += [Kernel(own, None, dtypes, reduces=what) for what in REDUCES if own.by_matrix]
    source = HALF + COMMON + "".join(map(definition, kernels))
    return cuda_on_cpu.CuPy(cuda_on_cpu.compile_all([source], folder), folder)


@pytest.fixture
def cupy(on_cpu: cuda_on_cpu.CuPy, monkeypatch: pytest.MonkeyPatch) -> Iterator[cuda_on_cpu.CuPy]:
    monkeypatch.setitem(sys.modules, "cupy", on_cpu)
    compiled.cache_clear()
    yield on_cpu
    compiled.cache_clear()


@every
def test_cupy_arrays_get_numpys_bits_also_from_saved_states(row: Grouped, cupy: cuda_on_cpu.CuPy) -> None:
    reference = row.run(normal(0), "numpy")
    gpu = row.run([cupy.asarray(w) for w in normal(0)])
    for step in range(8):
        if step in (0, 4) and not row.alone:
            gpu.load(gpu.saved())
        grads = [None if (step + k) % 4 == 1 else g for k, g in enumerate(normal(step + 1))]
        gpu.step([g if g is None else cupy.asarray(g) for g in grads])  # type: ignore[misc]
        reference.step(grads)  # type: ignore[arg-type]
    assert_same(map(to_host, flat(gpu.arrays)), flat(reference.arrays))
    with pytest.raises((ValueError, TypeError), match=r"parameter ('w0'|0 \(w0\))"):
        gpu.step([np.ones(5, np.float32)] + [None] * (len(SHAPES) - 1))  # type: ignore[list-item]


@every
def test_there_are_as_many_launches_as_for_one_tensor_of_each_form_and_dtype(
    row: Grouped, cupy: cuda_on_cpu.CuPy
) -> None:
    def launches(count: int, *dtypes: str) -> int:
        run, found = row.run([cupy.asarray(w) for w in normal(0, *dtypes)[:count]]), set()
        for step in range(3):
            before = cupy.launches
            run.step([cupy.asarray(g) for g in normal(step + 1, *dtypes)[:count]])
            found.add(cupy.launches - before)
        (same,) = found
        return same

    few, many = launches(2, F32), len(SHAPES)  # a vector and a matrix, which may have rules of their own
    assert (launches(many, F32), launches(2 * many, F32, F64)) == (few, 2 * few)
    assert launches(1, F32) == sum(len(rule.stages) for rule in row.rules) or row.alone
