"""MindSpore on the CPU, in PyNative mode: `nn` and `experimental.optim`."""

from __future__ import annotations

import os
from typing import Any

import mindspore as ms
from mindspore import nn
from mindspore.experimental import optim

from benchmark import inputs
from benchmark.cases import Case
from benchmark.timing import Job

ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
ms.set_context(runtime_num_threads=int(os.environ.get("OMP_NUM_THREADS", "1")))

DEEPEST = 1000  # parameters, for which `experimental` fails: what it compiles nests as deep
MOMENTUM = {"momentum": 0.9}
# Its Lamb doesn't run on the CPU.
OPTIMIZERS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "nn": {
        "sgd": ("SGD", {}),
        "sgd-momentum": ("Momentum", {"learning_rate": 0.01, **MOMENTUM}),
        "nag": ("SGD", {}),
        "nag-momentum": ("Momentum", {"learning_rate": 0.01, **MOMENTUM, "use_nesterov": True}),
        "adam": ("Adam", {}),
        "adamw": ("AdamWeightDecay", {}),
        "adamax": ("AdaMax", {}),
        "adagrad": ("Adagrad", {}),
        "adadelta": ("Adadelta", {}),
        "rmsprop": ("RMSProp", {}),
        "rmsprop-centered": ("RMSProp", {**MOMENTUM, "centered": True}),
        "ftrl": ("FTRL", {}),
    },
    "experimental": {
        "sgd": ("SGD", {"lr": 0.01}),
        "sgd-momentum": ("SGD", {"lr": 0.01, **MOMENTUM}),
        "nag": ("SGD", {"lr": 0.01}),
        "nag-momentum": ("SGD", {"lr": 0.01, **MOMENTUM, "nesterov": True}),
        "adam": ("Adam", {}),
        "adamw": ("AdamW", {}),
        "adamax": ("Adamax", {}),
        "nadam": ("NAdam", {}),
        "adagrad": ("Adagrad", {}),
        "adadelta": ("Adadelta", {}),
        "rmsprop": ("RMSprop", {}),
        "rmsprop-centered": ("RMSprop", {**MOMENTUM, "centered": True}),
    },
}


def version() -> str:
    return str(ms.__version__)


def ways(case: Case) -> list[str]:
    if case.row_count or case.master:  # row-sparse gradients exist inside compiled graphs only
        return []
    deep = len(case.shapes) >= DEEPEST
    return [way for way, known in OPTIMIZERS.items() if case.optimizer in known and not (deep and way != "nn")]


def build(case: Case, way: str) -> Job:
    name, options = OPTIMIZERS[way][case.optimizer]
    weights, grads = inputs.dense(case)
    parameters = [ms.Parameter(ms.Tensor(weight), name=f"p{k}") for k, weight in enumerate(weights)]
    optimizer = getattr(nn if way == "nn" else optim, name)(parameters, **options)
    now = tuple(map(ms.Tensor, grads))

    def renew() -> None:
        nonlocal now
        now = tuple(map(ms.Tensor, grads))

    return Job(lambda: optimizer(now), renew if case.fresh else None, ms.runtime.synchronize)
