"""Options as NumPy's numbers, given or assigned later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bitwise import assert_same

import mxopt
from mxopt import nn
from mxopt.arguments import attribute_of, declared_of
from mxopt.experimental import optim


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


def trained(optimizer: Any, dtype: str) -> bytes:
    """Two weights after five steps, in lists and one by one."""
    weights = [np.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3) for _ in range(2)]
    updater = mxopt.get_updater(optimizer)
    for t in range(5):
        grads = [np.arange(6, dtype=dtype).reshape(2, 3) * (0.3 * t + 0.1)] * 2
        updater([0, 1], grads, weights)
        for k in range(2):
            updater(k, grads[k], weights[k])
    return b"".join(weight.tobytes() for weight in weights)


KINDS: list[Callable[[Any], Any]] = [np.float16, np.float32, lambda x: np.array(x, np.float32)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(mxopt.Optimizer.opt_registry))
def test_every_option_has_the_bits_of_the_python_number_when_it_is_assigned(name: str, dtype: str) -> None:
    """So that it has those of the servers, which get it as that."""
    kind, tried = mxopt.Optimizer.opt_registry[name], 0
    for option in sorted(declared_of(kind)):
        attribute = attribute_of(kind, option)
        value: Any = getattr(mxopt.create(name, seed=3), attribute, None)
        for make in KINDS if type(value) is float else [np.int64] if type(value) is int else []:
            given, assigned, plain = make(value), mxopt.create(name, seed=3), mxopt.create(name, seed=3)
            setattr(assigned, attribute, given)
            setattr(plain, attribute, type(value)(given))
            assert trained(assigned, dtype) == trained(plain, dtype), (option, given)
            tried += 1
    assert tried > 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_so_do_those_of_groups_and_of_nn(dtype: str) -> None:
    def moved(optimizer: Any, weight: np.ndarray) -> bytes:
        for t in range(5):
            optimizer((np.arange(8, dtype=dtype) * (0.1 * t + 0.1),))
        return weight.tobytes()

    def start() -> np.ndarray:
        return np.linspace(-1, 1, 8, dtype=dtype)

    for make in KINDS[:2]:
        for option in ("lambd", "alpha"):
            ends = []
            for value in (make(0.3), float(make(0.3))):
                weight = start()
                grouped = optim.ASGD([weight], lr=0.1)
                grouped.param_groups[0][option] = value
                ends.append(moved(grouped, weight))
            assert ends[0] == ends[1], option
        for kind, option in (
            (nn.ASGD, "lambd"),
            (nn.ASGD, "alpha"),
            (nn.AdaFactor, "decay_rate"),
            (nn.AdamOffload, "eps"),
        ):
            ends = []
            for value in (make(0.3), float(make(0.3))):
                weight = start()
                optimizer: Any = kind([weight])
                setattr(optimizer, option, value)
                ends.append(moved(optimizer, weight))
            assert ends[0] == ends[1], (kind, option)
