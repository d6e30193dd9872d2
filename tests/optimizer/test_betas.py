"""Betas as NumPy's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bitwise import assert_same

import mxopt
from mxopt import nn


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lamb", "lans", "ftml"])
def test_corrections_are_those_of_the_same_python_numbers(name: str, dtype: str, kind: Any) -> None:
    """Also of betas that are assigned later."""
    betas = [kind(0.9), kind(0.99)]
    given = mxopt.create(name, beta1=betas[0], beta2=betas[1])
    plain = mxopt.create(name, beta1=float(betas[0]), beta2=float(betas[1]))
    assigned = mxopt.create(name)
    assigned.beta1, assigned.beta2 = betas  # type: ignore[attr-defined]
    weights = [np.linspace(-1, 1, 99, dtype=dtype) for _ in range(3)]
    states = [o.create_state(0, w) for o, w in zip((given, plain, assigned), weights, strict=True)]
    for t in range(1, 4):
        for optimizer, weight, state in zip((given, plain, assigned), weights, states, strict=True):
            optimizer.update(0, weight, np.full(99, 0.1 * t, dtype), state)
    assert_same(weights[::2], weights[1:2] * 2, name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nn_takes_them_as_python_numbers(dtype: str) -> None:
    weights = [np.linspace(-1, 1, 99, dtype=dtype) for _ in range(2)]
    for weight, kind in zip(weights, (np.float32, lambda x: float(np.float32(x))), strict=True):
        optimizer = nn.Lamb([weight], 0.01, beta1=kind(0.9), beta2=kind(0.99))  # type: ignore[operator]
        for t in range(1, 4):
            optimizer((np.full(99, 0.1 * t, dtype),))
    assert_same(weights[:1], weights[1:], "nn")
