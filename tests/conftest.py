"""Fixtures of all tests."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

import mxopt

# Whatever starts the tests (nohup, a script in the background), what they start can be interrupted.
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("test_bench", "test_chaos", "test_durability", "test_example_programs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of which some tests take ten seconds and more come first: at the end all processes but
    one would wait for such a test."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def rng() -> np.random.Generator:
    """A new stream in every run; a failure shows the seed, and `MXOPT_TEST_SEED=<seed> pytest ...`
    replays it."""
    seed = int(os.environ.get("MXOPT_TEST_SEED", "0")) or secrets.randbits(32)
    print(f"replay with MXOPT_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """A test that leaves a variable of ours changed would change what the next ones start."""
    before = dict(os.environ)
    yield
    changed = {n for n, _ in before.items() ^ os.environ.items() if n.startswith(("DMLC_", "MXOPT_", "MXNET_"))}
    assert not changed, f"left changed: {', '.join(sorted(changed))}"


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Sets the number of threads back after the test."""
    before = mxopt.get_num_threads()
    yield
    mxopt.set_num_threads(before)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as made:
        yield made
