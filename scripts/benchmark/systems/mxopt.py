"""mxopt itself, called as a user calls it: through `get_updater`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import mxopt
from benchmark import inputs
from benchmark.cases import KINDS, Case
from benchmark.timing import Job
from mxopt.typing import AnyArray

CLIPS = EVERY = NARROW = True  # whether it is compared where gradients are clipped, every row moves, states are narrow


def version() -> str:
    return mxopt.__version__


def ways(case: Case) -> list[str]:
    return ["list" if len(case.shapes) > 1 else "call"]


def build(case: Case, way: str, wide: bool = False) -> Job:
    narrow = {"state_dtype": "bfloat16"} if KINDS[case.kind].narrow and not wide else {}
    optimizer: Any = mxopt.create(case.row.name, multi_precision=case.master, **narrow, **case.row.options)
    updater = mxopt.get_updater(optimizer)
    weights, grads = inputs.dense(case)
    if case.row_count:
        optimizer.lazy_update = not case.every
        return _sparse(case, updater, weights[0])
    if case.clipped:
        return _clipped(optimizer, weights, grads)
    if way == "call":
        (weight,), (grad,) = weights, grads
        return Job(lambda: updater(0, grad, weight))
    indices, now = list(range(len(weights))), grads

    def renew() -> None:
        nonlocal now
        now = [grad.copy() for grad in grads]

    return Job(lambda: updater(indices, now, weights), renew if case.fresh else None)


def _clipped(optimizer: mxopt.Optimizer, weights: list[np.ndarray], grads: list[np.ndarray]) -> Job:
    trainer = mxopt.Trainer(weights, optimizer, kvstore=None, clip_global_norm=1.0)
    for param, grad in zip(trainer.parameters, grads, strict=True):
        param.grad = grad
    return Job(lambda: trainer.step(1))


def _sparse(case: Case, updater: mxopt.Updater, weight: AnyArray) -> Job:
    shape = case.shapes[0]
    grads = itertools.cycle([mxopt.sparse.row_sparse_array(pair, shape=shape) for pair in inputs.sparse(case)])
    now = None

    def renew() -> None:
        nonlocal now
        now = next(grads)

    return Job(lambda: updater(0, now, weight), renew)
