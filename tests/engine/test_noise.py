"""Noise: a function of seed, index, update and place, whoever draws it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import mxopt
from mxopt.engine.noise import BLOCK, Noise

SEED, UPDATE = 2**64 + 5, 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", [7, "layer"])
def test_a_block_is_drawn_as_by_a_new_generator(dtype: str, index: int | str) -> None:
    noise = Noise((2 * BLOCK + 10,), dtype, index, lambda: (SEED, UPDATE))
    blocks = []
    for block, length in enumerate((BLOCK, BLOCK, 10)):
        key = [5, zlib.crc32(repr(index).encode())]
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, block, UPDATE, 0]))
        blocks.append(generator.standard_normal(length, dtype))
        noise[0:8]  # another draw in between changes nothing
        assert np.array_equal(noise.flat[block * BLOCK : block * BLOCK + length], blocks[-1])
    assert np.array_equal(noise[...], np.concatenate(blocks))


@pytest.mark.usefixtures("restore_threads")
def test_any_number_of_threads_draws_the_same() -> None:
    rng = np.random.default_rng(0)
    start, grad = (rng.standard_normal((7 * BLOCK + 20_000,), np.float32) for _ in range(2))
    results = []
    for threads, engine in ((1, "numpy"), (1, "llvm"), (2, "llvm"), (3, "llvm")):
        mxopt.set_num_threads(threads)
        weight, updater = start.copy(), mxopt.get_updater(mxopt.create("sgld", seed=1))
        with mxopt.engine.use_engine(engine):
            for _ in range(3):
                updater("w", grad, weight)
        results.append(weight)
    for weight in results[1:]:
        assert np.array_equal(weight, results[0])


def test_a_plan_made_once_draws_new_noise_at_each_update() -> None:
    updater, weight, grad = mxopt.get_updater(mxopt.create("sgld", seed=1)), np.zeros(9), np.zeros(9)
    seen = set()
    for _ in range(3):
        updater(0, grad, weight)
        seen.add(weight.tobytes())
    assert len(seen) == 3
    assert len(updater.optimizer._plans) == 1
