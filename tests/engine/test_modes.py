"""The mode of a processor, which is a thread's own: the caller's holds in all of an update."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_threads import SOON, Job

import mxopt
from mxopt import settings
from mxopt.engine.threads import Crew
from mxopt.sparse import row_sparse_array

UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())  # of <fenv.h>
NEAREST = 0
ONE, LITTLE = 1.0, 1e-20
libm: Any = ctypes.CDLL(None)

pytestmark = pytest.mark.skipif(UPWARD is None or not hasattr(libm, "fesetround"), reason="knows no mode to set")


@pytest.fixture(autouse=True)
def _back_to_nearest() -> Iterator[None]:
    yield
    libm.fesetround(NEAREST)


def test_a_helper_computes_in_the_mode_of_its_caller() -> None:
    crew, both = Crew(1), threading.Barrier(2)
    found: list[dict[str, bool]] = []

    def work(batch: int) -> None:
        found[-1][threading.current_thread().name] = ONE + LITTLE > ONE
        both.wait(SOON)

    for mode in (NEAREST, UPWARD, NEAREST, UPWARD):  # the helper has been started in the first
        libm.fesetround(mode)
        found.append({})
        Job(2, work).run(crew)
        assert len(found[-1]) == 2
        assert set(found[-1].values()) == {mode == UPWARD}
    crew.dismiss()


@pytest.mark.parametrize("engine", ["numpy", "llvm"])
@pytest.mark.parametrize("kind", ["plain", "gaps", "rows of a table"])
def test_an_update_is_in_the_mode_of_its_caller(engine: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a thread of ours makes it, lest a signal cut it in two."""
    monkeypatch.setenv("MXOPT_ENGINE", engine)
    assert settings.engine_name() == engine

    def step(weight: Any) -> float:
        mxopt.get_updater(mxopt.create("sgd", learning_rate=1.0))(0, grad, weight)
        return float(np.asarray(weight.asnumpy() if kind == "rows of a table" else weight)[0, 0])

    def new() -> Any:
        whole = np.ones((4, 4), np.float64)
        if kind == "rows of a table":
            return row_sparse_array((whole[:1].copy(), [0]), shape=(4, 4))
        return whole[:, ::2] if kind == "gaps" else whole

    grad: Any = np.full(new().shape, -LITTLE)
    if kind == "rows of a table":
        grad = row_sparse_array((grad[:1], [0]), shape=grad.shape)
    assert step(new()) == 1.0
    libm.fesetround(UPWARD)
    assert step(new()) > 1.0
