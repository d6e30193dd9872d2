"""PyTorch's optimizers: fused, foreach and loop."""

from __future__ import annotations

import inspect
import itertools
import os
from typing import Any

import torch

from benchmark import inputs
from benchmark.cases import Case
from benchmark.timing import Job

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))

CLIPS = True  # whether it is compared where gradients are clipped by their norm
MOMENTUM = {"momentum": 0.9}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
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
}
# Those that take a sparse gradient without moving other rows.
SPARSE = {"sgd": OPTIMIZERS["sgd"], "adam": ("SparseAdam", {}), "adagrad": OPTIMIZERS["adagrad"]}
FLAGS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}


def version() -> str:
    return str(torch.__version__)


def ways(case: Case) -> list[str]:
    if case.row_count:
        return ["loop"] if case.optimizer in SPARSE else []
    if case.optimizer not in OPTIMIZERS or case.master:
        return []
    known = inspect.signature(getattr(torch.optim, OPTIMIZERS[case.optimizer][0])).parameters
    return [way for way in FLAGS if way == "loop" or way in known]


def build(case: Case, way: str) -> Job:
    name, options = (SPARSE if case.row_count else OPTIMIZERS)[case.optimizer]
    weights, grads = ([torch.from_numpy(a).clone() for a in arrays] for arrays in inputs.dense(case))
    flags = {} if name == "SparseAdam" else FLAGS[way]
    optimizer = getattr(torch.optim, name)(weights, **options, **flags)
    if case.row_count:
        return _sparse(case, optimizer, weights[0])
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad

    if case.clipped:

        def clipped() -> None:
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()

        return Job(clipped)

    def renew() -> None:
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad.clone()

    return Job(optimizer.step, renew if case.fresh else None)


def _sparse(case: Case, optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> Job:
    grads = itertools.cycle(
        [
            torch.sparse_coo_tensor(torch.from_numpy(i)[None], torch.from_numpy(d), case.shapes[0], is_coalesced=True)
            for d, i in inputs.sparse(case)
        ]
    )

    def renew() -> None:
        weight.grad = next(grads)

    return Job(optimizer.step, renew)
