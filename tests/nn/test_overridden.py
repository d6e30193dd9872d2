"""What a subclass overrides of learning rate, weight decay and the gradients' preparation is what a
step uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from handing import handing_on
from table import NN, Grouped
from test_steps import gradients, parameters, values

from mxopt import nn

METHODS = nn.Optimizer.overridable


def called(klass: str) -> set[str]:
    """The methods that a step of MindSpore's class calls, of which some call the others."""
    if klass == "LARS":
        return {"get_lr", "get_weight_decay", "scale_grad"}
    return {"get_lr", "get_weight_decay"} if klass == "AdaFactor" else set(METHODS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("row", NN, ids=str)
def test_methods_that_only_call_super_are_called_and_give_the_same_bits(
    row: Grouped, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    runs, name = [], row.name.partition(".")[2]
    for ours in (True, False):
        params = parameters(np.random.default_rng(0), *[dtype] * 3)
        if not ours:
            monkeypatch.setattr(nn, name, handing_on(getattr(nn, name), METHODS, calls))
        groups = [{"params": params[:2], "weight_decay": 0.25, "grad_centralization": True}, {"params": params[2:]}]
        runs.append((params, row.over(groups)))
    rng = np.random.default_rng(1)
    for _ in range(3):
        given = gradients(rng, runs[0][0])
        for _, optimizer in runs:
            optimizer(given)
        for one, other in zip(values(runs[0][0]), values(runs[1][0]), strict=True):
            np.testing.assert_array_equal(one, other)
    expected = called(name) - ({"decay_weight"} if name in ("Lamb", "AdamWeightDecay") else set())
    assert set(calls) >= expected


def step(klass: type, **options: Any) -> float:
    """Where a weight of 1 comes by a gradient of 1, at a rate of 0.5."""
    param = np.ones(1, np.float32)
    klass([param], 0.5, **options)((np.ones(1, np.float32),))
    return float(param[0])


def test_what_they_return_is_used() -> None:
    class Rate(nn.SGD):
        def get_lr(self) -> Any:
            return np.float32(0.25) * super().get_lr()  # type: ignore[operator]

    class Decay(nn.SGD):
        def get_weight_decay(self) -> Any:
            return (np.array(2.0),)

    class Prepared(nn.SGD):
        def decay_weight(self, gradients: Any) -> Any:
            return tuple(3 * grad for grad in gradients)

        def scale_grad(self, gradients: Any) -> Any:
            return tuple(grad - 1 for grad in super().scale_grad(gradients))

    class First(nn.Rprop):
        def get_lr(self) -> Any:
            return 0.125

    assert step(First) == 1 - 0.125  # its only use of a rate
    assert step(nn.SGD) == 1 - 0.5
    assert step(Rate) == 1 - 0.125
    assert step(Decay) == 1 - 0.5 * (1 + 2)
    assert step(Prepared, weight_decay=0.5, loss_scale=2.0) == 1 - 0.5 * (3 / 2 - 1)


def test_what_does_not_fit_is_refused_by_name_before_anything_changes() -> None:
    class Rates(nn.SGD):
        def get_lr(self) -> Any:
            return (0.1, 0.2)

    class Nothing(nn.SGD):
        def get_weight_decay(self) -> Any:
            return None

    class Fewer(nn.SGD):
        def scale_grad(self, gradients: Any) -> Any:
            return ()

    for klass, says in (
        (Rates, "get_lr returned 2 numbers for 1"),
        (Nothing, "get_weight_decay must"),
        (Fewer, "0 gr"),
    ):
        weight = np.ones(1, np.float32)
        optimizer = klass([weight], 0.5)
        with pytest.raises((TypeError, ValueError), match=says):
            optimizer((np.ones(1, np.float32),))
        assert (weight[0], optimizer.global_step) == (1, 0)
