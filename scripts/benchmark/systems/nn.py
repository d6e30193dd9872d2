"""mxopt's `nn`, the `mindspore.nn.Optimizer` family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxopt
from benchmark.cases import Case
from benchmark.systems import experimental
from benchmark.timing import Job
from mxopt import nn

MOMENTUM = {"learning_rate": 0.01, "momentum": 0.9}
OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sgd": (nn.SGD, {"learning_rate": 0.01}),
    "sgd-momentum": (nn.Momentum, MOMENTUM),
    "nag-momentum": (nn.Momentum, {**MOMENTUM, "use_nesterov": True}),
    "adam": (nn.Adam, {}),
    "adamw": (nn.AdamWeightDecay, {}),
    "adamax": (nn.AdaMax, {}),
    "adagrad": (nn.Adagrad, {}),
    "adadelta": (nn.Adadelta, {}),
    "rmsprop": (nn.RMSProp, {}),
    "rmsprop-centered": (nn.RMSProp, {"momentum": 0.9, "centered": True}),
    "ftrl": (nn.FTRL, {}),
    "lamb": (nn.Lamb, {"learning_rate": 0.001}),
}


def version() -> str:
    return mxopt.__version__


def ways(case: Case) -> list[str]:
    return ["call"] if case.optimizer in OPTIMIZERS and not case.row_count and not case.master else []


def build(case: Case, way: str) -> Job:
    make, options = OPTIMIZERS[case.optimizer]
    return experimental.job(case, lambda weights: make(weights, **options))
