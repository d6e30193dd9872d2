"""`nn` on CuPy arrays (`cuda_on_cpu`, which runs the same kernels): NumPy's bits; launches by
dtype, not by tensor."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from test_steps import MAKE

import mxopt
from mxopt import nn
from mxopt.engine.cuda import compiled
from mxopt.engine.cuda_source import COMMON, HALF, definition
from mxopt.engine.kernel import Kernel

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
SHAPES = (5,), (3, 4), (), (2, 1, 3), (40,)
HERE = {name: make for name, make in MAKE.items() if not name.startswith("AdaFactor")}  # whose means need a real CuPy
every = pytest.mark.parametrize("name", HERE)


def made(name: str, weights: list[Any]) -> nn.Optimizer:
    return HERE[name](weights)


def normal(seed: int, dtypes: tuple[Any, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for dtype in dtypes for shape in SHAPES]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> cuda_on_cpu.CuPy:
    if not shutil.which("g++"):
        pytest.skip("there is no g++ here")
    folder = tmp_path_factory.mktemp("kernels")
    rules = {rule.name: rule for name in HERE if (rule := getattr(made(name, normal(0, (F32,))), "rule", None))}
    kernels = [
        Kernel(rule, stage, (dtype,) * (2 + len(rule.states)))
        for rule in rules.values()
        for stage in range(len(rule.stages))
        for dtype in ("float32", "float64")
    ]
    source = HALF + COMMON + "".join(map(definition, kernels))
    return cuda_on_cpu.CuPy(cuda_on_cpu.compile_all([source], folder), folder)


@pytest.fixture
def cupy(on_cpu: cuda_on_cpu.CuPy, monkeypatch: pytest.MonkeyPatch) -> Iterator[cuda_on_cpu.CuPy]:
    monkeypatch.setitem(sys.modules, "cupy", on_cpu)
    compiled.cache_clear()
    yield on_cpu
    compiled.cache_clear()


def launches(cupy: cuda_on_cpu.CuPy, optimizer: nn.Optimizer, grads: list[Any]) -> int:
    before = cupy.launches
    optimizer(tuple(g if g is None else cupy.asarray(g) for g in grads))
    return cupy.launches - before


@every
def test_cupy_arrays_get_numpys_bits(name: str, cupy: cuda_on_cpu.CuPy) -> None:
    weights = normal(0, (F32,))
    ours = [cupy.asarray(w) for w in weights]
    gpu, reference = made(name, ours), made(name, weights)
    for step in range(4):
        grads = [None if (step + k) % 4 == 1 else g for k, g in enumerate(normal(step + 1, (F32,)))]
        launches(cupy, gpu, grads)
        with mxopt.use_engine("numpy"):
            reference(tuple(grads))
    assert [w.get().tobytes() for w in ours] == [w.tobytes() for w in weights]


@every
def test_there_are_as_many_launches_as_for_one_tensor_of_each_dtype(name: str, cupy: cuda_on_cpu.CuPy) -> None:
    counts = []
    for dtypes, few in (((F32,), True), ((F32,), False), ((F32, F64), False)):
        stop = 1 if few else None
        optimizer = made(name, [cupy.asarray(w) for w in normal(0, dtypes)[:stop]])
        counts.append({launches(cupy, optimizer, normal(step + 1, dtypes)[:stop]) for step in range(3)})
    one, several, both = (count for (count,) in counts)
    assert (one, several, both) == (one, one, 2 * one)
