"""Fixtures of all tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import numpy as np
import pytest

import mxopt


@pytest.fixture
def rng() -> np.random.Generator:
    """A new stream in every run; a failure shows the seed, and `MXOPT_TEST_SEED=<seed> pytest ...` replays it."""
    seed = int(os.environ.get("MXOPT_TEST_SEED", "0")) or secrets.randbits(32)
    print(f"replay with MXOPT_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Sets the number of threads back after the test."""
    before = mxopt.get_num_threads()
    yield
    mxopt.set_num_threads(before)
