"""What a subclass of a built-in optimizer overrides is used by a call, by a Trainer and by a
store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from handing import handing_on
from table import EXPERIMENTAL, Grouped

import mxopt
from mxopt.experimental import optim
from mxopt.parameter import Parameter

METHODS = ["rule", "scalars", "hand_on", "new_state", "rests", "uses_master"]


def directly(optimizer: Any, params: list[Parameter], grads: list[np.ndarray]) -> Callable[[], None]:
    return lambda: optimizer(tuple(grads))


def trained(optimizer: Any, params: list[Parameter], grads: list[np.ndarray], **store: Any) -> Callable[[], None]:
    trainer = mxopt.Trainer(params, optimizer, **store)

    def step() -> None:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        trainer.step(1)

    return step


def stored(optimizer: Any, params: list[Parameter], grads: list[np.ndarray]) -> Callable[[], None]:
    return trained(optimizer, params, grads, kvstore=mxopt.kvstore.create("local"), update_on_kvstore=True)


@pytest.mark.parametrize("stepping", [directly, trained, stored])
@pytest.mark.parametrize("row", EXPERIMENTAL, ids=str)
def test_methods_that_only_call_super_are_called_and_give_the_same_bits(
    row: Grouped, stepping: Callable[..., Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    klass = row.name.partition(".")[2]
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((4, 3)).astype(dtype) for dtype in ("float32", "float16")]
    grads = [rng.standard_normal((4, 3)).astype(value.dtype) for value in values]
    runs = []
    for theirs in (False, True):
        params = [Parameter(value.copy(), f"p{k}") for k, value in enumerate(values)]
        if theirs:
            own = handing_on(getattr(optim, klass), METHODS, calls)
            monkeypatch.setattr(optim, klass, own)
            optim.Optimizer.registry.add(f"_{own.__name__}", own)  # in no list
        optimizer = row.over(params, multi_precision=True)
        runs.append((params, stepping(optimizer, params, grads)))
    for _ in range(3):
        for _, step in runs:
            step()
    for one, other in zip(*(params for params, _ in runs), strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    unused = set() if getattr(optim, klass).carried else {"hand_on"}
    unused |= set() if row.rules[0].states else {"new_state"}
    assert set(calls) == set(METHODS) - unused
