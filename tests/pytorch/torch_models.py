"""The models, steps and optimizers of the tests with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

# name, options: the same in torch.optim, whose class has the name in its own spelling.
PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}), ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}), ("Adam", {}), ("Adam", {"amsgrad": True, "lr": 0.1}),
    ("Adam", {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}), ("AdamW", {"lr": 0.01}), ("Adamax", {}),
    ("NAdam", {"lr": 0.01}), ("RAdam", {"lr": 0.01}), ("Adadelta", {}), ("Adagrad", {"lr": 0.1, "lr_decay": 0.01}),
    ("ASGD", {"lr": 0.01, "t0": 3.0}), ("RMSprop", {}), ("RMSprop", {"centered": True, "momentum": 0.9}), ("Rprop", {}),
    ("Adam", {"maximize": True}), ("Adafactor", {}), ("Adafactor", {"maximize": True}),
    ("Adafactor", {"lr": 0.1, "eps": (1e-3, 0.1), "d": 2.0, "weight_decay": 0.1, "beta2_decay": -0.5}),
]  # fmt: skip
IDS = [f"{name}-{'-'.join(options)}" for name, options in PAIRS]
pairs = pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)
NAMES = [
    "adam", "sgd", "lamb", "lars", "lans", "ftrl", "adabelief", "nag", "groupadagrad", "lbsgd", "sgld", "nadam", "asgd",
    "adafactor",
]  # fmt: skip


def model(seed: int = 0, dtype: Any = None) -> Any:
    torch.manual_seed(seed)
    made = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    return made if dtype is None else made.to(dtype)


def backward(net: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = next(net.parameters())
    inputs = torch.randn(8, 4, generator=generator).to(first.dtype)
    (net(inputs) ** 2).sum().backward()


def train(net: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        backward(net, step)
        optimizer.step()


def values(net: Any) -> list[np.ndarray]:
    return [p.detach().float().numpy().copy() for p in net.parameters()]


def close(a: Any, b: Any) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def same(a: Any, b: Any) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y)


class of:  # noqa: N801
    """Arrays as a model's parameters."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays

    def parameters(self) -> list[Any]:
        return [torch.from_numpy(a) for a in self.arrays]
