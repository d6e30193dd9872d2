"""MXNet 1.9.1, called through its updater: a call for each tensor, one for the list, or aggregated
kernels."""

from __future__ import annotations

import io
import itertools
import os
from contextlib import redirect_stdout

import numpy as np

from benchmark import inputs
from benchmark.cases import Case
from benchmark.timing import Job

vars(np)["bool"] = bool  # MXNet reads this alias, which NumPy has dropped
import mxnet as mx  # noqa: E402

MISSING = ("adamw", "adabelief", "lans", "lion")  # came with MXNet 2, and with nothing
# Those that leave other rows alone; in the others a sparse gradient becomes a dense one.
LAZY = ("sgd", "sgd-momentum", "nag", "adam", "adagrad", "groupadagrad", "ftrl", "lbsgd", "lars")
AGGREGATING = ("sgd", "lars", "lamb")
AGGREGATED = "45"  # tensors, the most that MXNet's kernels take


def version() -> str:
    return str(mx.__version__)


def ways(case: Case) -> list[str]:
    if case.row.name in MISSING or case.dtype == "bfloat16":
        return []
    if case.row_count:
        return ["dense table", "row-sparse table"] if case.optimizer in LAZY else []
    if len(case.shapes) == 1:
        return ["single"]
    return ["single", "list", "aggregated"] if case.row.name in AGGREGATING else ["single", "list"]


def build(case: Case, way: str) -> Job:
    os.environ["MXNET_OPTIMIZER_AGGREGATION_SIZE"] = AGGREGATED if way == "aggregated" else "4"
    with redirect_stdout(io.StringIO()):
        optimizer = mx.optimizer.create(case.row.name, multi_precision=case.master, **case.row.options)
    updater = mx.optimizer.get_updater(optimizer)
    if case.row_count:
        return _sparse(case, way, updater)
    weights, grads = ([mx.nd.array(a, dtype=case.dtype) for a in arrays] for arrays in inputs.dense(case))
    indices, now = list(range(len(weights))), grads

    def one_by_one() -> None:
        for index, grad, weight in zip(indices, now, weights, strict=True):
            updater(index, grad, weight)

    def together() -> None:
        updater(indices, now, weights)

    def renew() -> None:
        nonlocal now
        now = [grad.copy() for grad in grads]
        mx.nd.waitall()

    return Job(one_by_one if way == "single" else together, renew if case.fresh else None, mx.nd.waitall)


def _sparse(case: Case, way: str, updater: mx.optimizer.Updater) -> Job:
    if hasattr(updater.optimizer, "lazy_update"):
        updater.optimizer.lazy_update = True
    shape = case.shapes[0]
    weight = mx.nd.array(inputs.dense(case)[0][0])
    if way == "row-sparse table":
        weight = weight.tostype("row_sparse")
    grads = itertools.cycle([mx.nd.sparse.row_sparse_array(pair, shape=shape) for pair in inputs.sparse(case)])
    now = None

    def renew() -> None:
        nonlocal now
        now = next(grads)

    return Job(lambda: updater(0, now, weight), renew, mx.nd.waitall)
