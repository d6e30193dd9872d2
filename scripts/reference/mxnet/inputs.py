"""The seeded weights and gradients of a case."""

import numpy as np
from cases import Case
from real_mxnet import mx


def gradients(case: Case, number: int, dtype: str) -> tuple[np.ndarray, list[list[int]] | None]:
    """Seeded gradients of one parameter, about a tenth of them exactly zero; row-sparse: (all rows,
    rows per step)."""
    shape = case.shapes[number]
    rng = np.random.default_rng((2019, number, case.steps, *shape))
    if case.grad_storage == "row_sparse":
        counts = [3, 5, 1, 0, 4, 6, 2, 3][: case.steps]  # one step without any row
        rows = [sorted(rng.choice(shape[0], count, replace=False).tolist()) for count in counts]
        shape = (sum(counts), *shape[1:])
    else:
        rows = None
        shape = (case.steps, *shape)
    values = rng.standard_normal(shape)
    zeros = rng.random(shape) < 0.1
    if rows is None:
        zeros[0] = False
        if case.zero_start:
            zeros[0].flat[::3] = True
    else:
        zeros[: len(rows[0])] = False
    values[zeros] = 0
    return values.astype(dtype), rows


def initial_weight(case: Case, number: int, dtype: str) -> np.ndarray:
    shape = case.shapes[number]
    weight = np.random.default_rng((1912, number, *shape)).standard_normal(shape).astype(dtype)
    if case.weight_rows is not None:
        weight[np.setdiff1d(np.arange(shape[0]), case.weight_rows)] = 0
    return weight


def step_gradient(values: np.ndarray, rows: list[list[int]] | None, step: int, weight):
    """A gradient array of its own for each step: LBSGD keeps the first of a macro batch, AdaDelta
    writes into it."""
    if rows is None:
        return mx.nd.array(values[step], dtype=values.dtype)
    start = sum(map(len, rows[:step]))
    if not rows[step]:
        return mx.nd.sparse.zeros("row_sparse", weight.shape, dtype=values.dtype)
    data = values[start : start + len(rows[step])]
    return mx.nd.sparse.row_sparse_array((data, rows[step]), shape=weight.shape, dtype=values.dtype)
