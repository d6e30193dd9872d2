"""Noise: a function of seed, index, update and place, the same on every engine, and normal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt.engine import noise
from mxopt.engine.choice import EngineName
from mxopt.engine.rounding import Rounding
from mxopt.rules.noise import normal, parted

SIZE = 2**20


def draw(key: Any = 0, update: int = 1, seed: int = 2, real: Any = np.float32, size: int = SIZE) -> np.ndarray:
    of = Rounding(key, lambda: update, lambda: seed)
    return noise.whole(of, of.weyl((size,)), real)


def test_it_is_the_inverse_of_the_normal_distribution_function() -> None:
    special = pytest.importorskip("scipy.special")
    number = np.unique(np.concatenate([2 ** np.arange(0.0, 32, 0.01), np.arange(1, 9)]).astype(np.uint32) | 1)
    exponent, mantissa = parted(number.astype(np.float32).view(np.uint32))
    for real, within in ((np.float32, 2e-6), (np.float64, 4e-7)):
        expected = -special.ndtri(number.astype(np.float32).astype(np.float64) / 2.0**33)
        for side, sign in ((0, 1), (1, -1)):
            found = normal(exponent.astype(real), mantissa.view(np.float32).astype(real), real(side))
            assert found.dtype == real
            assert np.abs(sign * found.astype(np.float64) - expected).max() < within


@pytest.mark.parametrize("seed", range(3))
def test_its_distribution_is_normal(seed: int) -> None:
    x = draw(seed=seed, real=np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * np.sqrt(variance / x.size)
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(x, "norm").pvalue > 1e-4
    for bound in (3, 4):  # as many in the tails as there should be
        expected = 2 * stats.norm.sf(bound) * x.size
        assert abs(int((np.abs(x) > bound).sum()) - expected) < 5 * np.sqrt(expected)


def test_numbers_that_differ_in_anything_have_nothing_to_do_with_each_other() -> None:
    x = draw().astype(np.float64)
    others = [
        draw(key=1),
        draw(key="0"),
        draw(update=2),
        draw(seed=3),
        *(np.roll(draw(), lag) for lag in (1, 2, 16, 4096)),
    ]
    for y in others:
        for a, b in ((x, y), (x * x - 1, y * y - 1)):
            assert abs((a * b).mean()) < 5 * a.std() * b.std() / np.sqrt(SIZE)


def test_an_updates_noise_has_the_variance_of_the_rate() -> None:
    weight, grad = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    mxopt.get_updater(mxopt.create("sgld", learning_rate=0.25, seed=1))(0, grad, weight)
    assert abs(weight.astype(np.float64).var() - 0.25) < 5 * 0.25 * np.sqrt(2 / SIZE)


@pytest.mark.usefixtures("restore_threads")
def test_any_number_of_threads_draws_the_same(rng: np.random.Generator) -> None:
    start, grad = (rng.standard_normal((480_000,), np.float32) for _ in range(2))
    results = []
    engine: EngineName
    for threads, engine in ((1, "numpy"), (1, "llvm"), (2, "llvm"), (3, "llvm")):
        mxopt.set_num_threads(threads)
        weight, updater = start.copy(), mxopt.get_updater(mxopt.create("sgld", seed=1))
        with mxopt.engine.use_engine(engine):
            for _ in range(3):
                updater("w", grad, weight)
        results.append(weight)
    for weight in results[1:]:
        assert np.array_equal(weight, results[0])


def test_a_list_draws_what_its_tensors_draw_alone(rng: np.random.Generator) -> None:
    start = [rng.standard_normal(n, np.float32) for n in (3, 20_000, 500)]
    alone, listed = ([w.copy() for w in start] for _ in range(2))
    one, all_of_them = (mxopt.get_updater(mxopt.create("sgld", seed=1)) for _ in range(2))
    names: list[int | str] = [0, "b", 2]
    for _ in range(2):
        all_of_them(names, start, listed)
        for index, grad, weight in zip(names, start, alone, strict=True):
            one(index, grad, weight)
    for a, b in zip(alone, listed, strict=True):
        assert np.array_equal(a, b)


def test_a_plan_made_once_draws_new_noise_at_each_update() -> None:
    updater, weight, grad = mxopt.get_updater(mxopt.create("sgld", seed=1)), np.zeros(9), np.zeros(9)
    seen = set()
    for _ in range(3):
        updater(0, grad, weight)
        seen.add(weight.tobytes())
    assert len(seen) == 3
    assert len(updater.optimizer._plans) == 1  # type: ignore[attr-defined]
