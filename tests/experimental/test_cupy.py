"""`experimental.optim` on CuPy arrays (`cuda_on_cpu`, which runs the same kernels): NumPy's bits,
one launch a step."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from optim_table import STEPS, TABLE, every, grads_of, normal

import mxopt
from mxopt.engine.cuda import compiled
from mxopt.engine.cuda_source import COMMON, HALF, definition
from mxopt.engine.kernel import Kernel


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> cuda_on_cpu.CuPy:
    if not shutil.which("g++"):
        pytest.skip("there is no g++ here")
    folder = tmp_path_factory.mktemp("kernels")
    rules = {}
    for make in TABLE.values():
        optimizer = make(normal(0))
        rule = optimizer.rule(optimizer.param_groups[0])
        rules[rule.name] = rule
    kernels = [Kernel(rule, 0, ("float32",) * (2 + len(rule.states))) for rule in rules.values()]
    source = HALF + COMMON + "".join(map(definition, kernels))
    return cuda_on_cpu.CuPy(cuda_on_cpu.compile_all([source], folder), folder)


@pytest.fixture
def cupy(on_cpu: cuda_on_cpu.CuPy, monkeypatch: pytest.MonkeyPatch) -> Iterator[cuda_on_cpu.CuPy]:
    monkeypatch.setitem(sys.modules, "cupy", on_cpu)
    compiled.cache_clear()
    yield on_cpu
    compiled.cache_clear()


@every
def test_cupy_arrays_get_numpys_bits_in_one_launch_a_step(make: Any, cupy: cuda_on_cpu.CuPy) -> None:
    weights = normal(0)
    ours = [cupy.asarray(w) for w in weights]
    gpu, reference = make(ours), make(weights)
    gpu.load_state_dict(gpu.state_dict())
    for step in range(STEPS):
        grads = [None if (step + k) % 4 == 1 else g for k, g in enumerate(grads_of(step))]
        before = cupy.launches
        gpu([g if g is None else cupy.asarray(g) for g in grads])
        assert cupy.launches == before + 1
        with mxopt.use_engine("numpy"):
            reference(grads)
    assert [w.get().tobytes() for w in ours] == [w.tobytes() for w in weights]
    with pytest.raises((ValueError, TypeError), match="group 0, parameter '0'"):
        gpu([np.ones(5, np.float32)] + [None] * (len(ours) - 1))
