"""`mxopt.torch.Optimizer`, mxopt's optimizers on PyTorch's tensors."""

from __future__ import annotations

import os

import torch

import mxopt
import mxopt.torch
from benchmark import inputs
from benchmark.cases import Case
from benchmark.systems.pytorch import OPTIMIZERS
from benchmark.timing import Job

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
NAMED = {name: (kind.lower(), options) for name, (kind, options) in OPTIMIZERS.items()} | {"lamb": ("lamb", {})}


def version() -> str:
    return f"{mxopt.__version__} with PyTorch {torch.__version__}"


def ways(case: Case) -> list[str]:
    return ["call"] if case.optimizer in NAMED and not case.row_count and not case.master else []


def build(case: Case, way: str) -> Job:
    name, options = NAMED[case.optimizer]
    weights, grads = ([torch.from_numpy(a).clone() for a in arrays] for arrays in inputs.dense(case))
    optimizer = mxopt.torch.Optimizer(weights, name, **options)
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad

    def renew() -> None:
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad.clone()

    return Job(optimizer.step, renew if case.fresh else None)
