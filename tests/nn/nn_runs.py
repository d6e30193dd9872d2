"""Takes the recorded cases of `mindspore.nn`'s optimizers with mxopt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from recorded import arrays, decode, document, split

from mxopt import nn
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array

CASES = {case["name"]: case for case in document("nn")["cases"]}


def parameters_of(case: dict[str, Any]) -> list[Parameter]:
    problem = document("nn")["problems"][case["problem"]]
    values = split(arrays("nn")[f"problem/{case['problem']}/weights"], problem["shapes"])
    return [Parameter(v.astype(problem["dtype"]), n) for v, n in zip(values, problem["names"], strict=True)]


def gradients_of(case: dict[str, Any], step: int) -> list[Any]:
    """In the order of the problem's parameters."""
    name, problem, data = case["problem"], document("nn")["problems"][case["problem"]], arrays("nn")
    if not problem["sparse"]:
        return [x.astype(problem["dtype"]) for x in split(data[f"problem/{name}/grads"][step], problem["shapes"])]
    (shape,) = problem["shapes"]
    rows = data[f"problem/{name}/rows"][step]
    return [row_sparse_array((data[f"problem/{name}/values"][step].reshape(len(rows), -1), rows), shape=shape)]


def optimizer_of(case: dict[str, Any], parameters: list[Parameter]) -> nn.Optimizer:
    groups = [
        {
            key: [parameters[k] for k in value] if key in ("params", "order_params") else decode(value)
            for key, value in g.items()
        }
        for g in case["groups"] or ()
    ]
    if case["inner"]:
        inner, options = case["inner"]
        return nn.LARS(getattr(nn, inner)(parameters, **decode(options)), **decode(case["options"]))
    optimizer: nn.Optimizer = getattr(nn, case["class"])(groups or parameters, **decode(case["options"]))
    if case["target"]:
        optimizer.target = case["target"]
    return optimizer


def run(case: dict[str, Any]) -> Iterator[tuple[nn.Optimizer, list[Parameter]]]:
    """Optimizer and parameters after each step."""
    parameters = parameters_of(case)
    optimizer = optimizer_of(case, parameters)
    position = {id(p): k for k, p in enumerate(parameters)}
    order = [position[id(p)] for p in optimizer.parameters]
    for step in range(document("nn")["problems"][case["problem"]]["steps"]):
        gradients = gradients_of(case, step)
        optimizer(tuple(gradients[k] for k in order))
        yield optimizer, parameters


def flat(parameters: list[Parameter]) -> np.ndarray:
    return np.concatenate([p.asnumpy().astype(np.float64).ravel() for p in parameters])
