"""All passes of a rule of several stages as one call, whose norms are those that `math.fsum`
gives."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from bitwise import Run, array, assert_runs_agree
from table import ROWS, Row

from mxopt import assembler
from mxopt.engine import native, passes
from mxopt.rules.common import norm


@pytest.fixture(scope="module")
def compiled_norm() -> Callable[[np.ndarray], float]:
    asm = assembler.Lines()
    passes.write_exact_sum(asm)
    with asm.function("double @norm(ptr %numbers, i64 %count, i64 %step)"):
        total = asm.let("call double @exact_sum(ptr %numbers, i64 %count, i64 %step)")
        asm.put(f"ret double {asm.call('double', 'llvm.sqrt.f64', f'double {total}')}")
    kind = ctypes.PYFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    function = kind(assembler.compile_assembly(asm.module(), "norm"))

    def call(squares: np.ndarray) -> float:
        spread = np.full((len(squares), 3), np.nan)
        spread[:, 1] = squares
        return float(function(spread.ctypes.data + 8, len(squares), 3))

    return call


def same(a: float, b: float) -> bool:
    return np.float64(a).tobytes() == np.float64(b).tobytes() or (a != a and b != b)


def test_norms_are_rounded_once(compiled_norm: Callable[[np.ndarray], float], rng: np.random.Generator) -> None:
    for spread in (0, 1, 40, 400, 2000):
        for count in (0, 1, 2, 3, 17, 400):
            for _ in range(20):
                exponents = np.clip(rng.integers(-spread, spread + 1, count), -1074, 1010)
                squares = np.ldexp(rng.random(count) + 0.5, exponents) * (rng.random(count) > 0.1)
                assert same(compiled_norm(squares), norm(squares.tolist())), squares


@pytest.mark.parametrize(
    "squares",
    [
        [0.0, 0.0],
        [5e-324],
        [5e-324] * 7,
        [2.2250738585072014e-308, 5e-324],
        [2.225073858507201e-308, 2.225073858507201e-308, 5e-324],
        [1.0, 2.0**-53],
        [1.0, 2.0**-53, 5e-324],
        [1.0 + 2.0**-52, 2.0**-53],
        [1e16, 1.0, 1e-300],
        [2.0**53, 1.0, 0.5, 0.25],
        [1.7976931348623157e308],
        [1.7976931348623157e308, 1.7976931348623157e308],
        [1.7976931348623157e308, 2.0**969],
        [1.7976931348623157e308, 2.0**970],
        [np.inf, 1.0],
        [np.nan, 1.0],
        [1.0, np.inf, np.nan],
    ],
    ids=str,
)
def test_norms_at_the_ends(compiled_norm: Callable[[np.ndarray], float], squares: list[float]) -> None:
    assert same(compiled_norm(np.array(squares)), norm(squares))


@pytest.mark.parametrize("row", [row for row in ROWS if row.make().rule.layerwise], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_call_gives_the_bits_of_many(
    row: Row, dtype: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part: native.NativePart) -> None:
        raise AssertionError("took more than one call")

    monkeypatch.setattr(native.PassesPart, "finish", fail)
    start = [array(rng, (n,), dtype) for n in (17_000, 40_000, 16_385)]
    runs = [Run(row.make(), [w.copy() for w in start], e, listed) for e, listed in (("numpy", False), ("llvm", True))]
    assert_runs_agree(runs, lambda step: [array(rng, w.shape, dtype) for w in start], steps=3)
