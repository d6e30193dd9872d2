"""mxopt's `experimental.optim`, MindSpore's experimental API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxopt
from benchmark import inputs
from benchmark.cases import Case
from benchmark.timing import Job
from mxopt.experimental import optim

MOMENTUM = {"momentum": 0.9}
OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sgd": (optim.SGD, {"lr": 0.01}),
    "sgd-momentum": (optim.SGD, {"lr": 0.01, **MOMENTUM}),
    "nag-momentum": (optim.SGD, {"lr": 0.01, **MOMENTUM, "nesterov": True}),
    "adam": (optim.Adam, {}),
    "adamw": (optim.AdamW, {}),
    "adamax": (optim.Adamax, {}),
    "nadam": (optim.NAdam, {}),
    "adagrad": (optim.Adagrad, {}),
    "adadelta": (optim.Adadelta, {}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop-centered": (optim.RMSprop, {**MOMENTUM, "centered": True}),
}


def version() -> str:
    return mxopt.__version__


def ways(case: Case) -> list[str]:
    return ["call"] if case.optimizer in OPTIMIZERS and not case.row_count and not case.master else []


def build(case: Case, way: str) -> Job:
    make, options = OPTIMIZERS[case.optimizer]
    return job(case, lambda weights: make(weights, **options))


def job(case: Case, make: Callable[[Any], Callable[[Any], Any]]) -> Job:
    """Steps of what `make` makes of the weights: a function of the tuple of gradients."""
    weights, grads = inputs.dense(case)
    step, now = make(weights), tuple(grads)

    def renew() -> None:
        nonlocal now
        now = tuple(grad.copy() for grad in grads)

    return Job(lambda: step(now), renew if case.fresh else None)
