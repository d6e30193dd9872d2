"""Three trainings in NumPy. Each takes a seed, options of `mxopt.create` and a number of steps, and
returns the loss of each batch.

What a seed says: the first weights and the order of the batches. Rates fall to 0 along a cosine.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

import mxopt

Curve = list[float]  # the loss of every batch
Loss = Callable[[list[np.ndarray], Any], tuple[float, list[Any]]]
F32 = np.float32


def train(weights: list[np.ndarray], batches: Sequence[Any], loss: Loss, options: dict[str, Any]) -> Curve:
    """`loss(weights, batch)` returns the loss and a gradient for each weight."""
    schedule = mxopt.lr_scheduler.CosineScheduler(len(batches), base_lr=options["learning_rate"], final_lr=0)
    optimizer = mxopt.create(**options | {"learning_rate": None, "lr_scheduler": schedule})
    updater, curve, indices = mxopt.get_updater(optimizer), [], list(range(len(weights)))
    for batch in batches:
        found, grads = loss(weights, batch)
        updater(indices, grads, weights)
        curve.append(found)
    return curve


def digits(seed: int, options: dict[str, Any], steps: int) -> Curve:
    """scikit-learn's handwritten digits by a perceptron of 64, 128 and 10; batches of 64."""
    x, y = _digits()
    rng = np.random.default_rng(seed)
    weights = _dense(rng, 64, 128) + _dense(rng, 128, 10)
    batches = [rng.integers(len(x), size=64) for _ in range(steps)]
    return train(weights, batches, lambda w, b: _net(w, x[b], y[b]), options)


def characters(seed: int, options: dict[str, Any], steps: int) -> Curve:
    """The next character of the text of Python's own help, from the 12 before; batches of 128."""
    text, letters = _text()
    rng = np.random.default_rng(seed)
    table = (rng.standard_normal((letters, 16)) * 0.1).astype(F32)
    weights = [table, *_dense(rng, 12 * 16, 128), *_dense(rng, 128, letters)]

    def loss(w: list[np.ndarray], at: np.ndarray) -> tuple[float, list[Any]]:
        context = text[at[:, None] + np.arange(12)]
        found, grads = _net(w[1:], w[0][context].reshape(len(at), -1), text[at + 12], inputs=True)
        first = np.zeros_like(w[0])
        np.add.at(first, context.ravel(), grads.pop().reshape(-1, 16))
        return found, [first, *grads]

    return train(weights, [rng.integers(len(text) - 12, size=128) for _ in range(steps)], loss, options)


def factors(seed: int, options: dict[str, Any], steps: int) -> Curve:
    """A matrix of 2,000 × 1,500 that is the product of 8 factors and noise, from a twentieth of its
    entries, by tables of 32 factors; the gradients are row-sparse, and rows without one rest.
    Batches of 256."""
    (rows, columns, values), (height, width) = _ratings()
    rng = np.random.default_rng(seed)
    weights = [(rng.standard_normal((n, 32)) * 0.1).astype(F32) for n in (height, width)]

    def loss(w: list[np.ndarray], b: np.ndarray) -> tuple[float, list[Any]]:
        i, j = rows[b], columns[b]
        a, c = w[0][i], w[1][j]
        wrong = (a * c).sum(1) - values[b]
        pairs = (i, c, w[0]), (j, a, w[1])
        scaled = (2 / len(b) * wrong)[:, None].astype(F32)
        return float((wrong * wrong).mean()), [
            mxopt.sparse.row_sparse_array((scaled * other, which), of.shape) for which, other, of in pairs
        ]

    batches = [rng.integers(len(values), size=256) for _ in range(steps)]
    return train(weights, batches, loss, options | {"lazy_update": True})


TASKS = {"digits": (digits, 1200), "factors": (factors, 2500), "characters": (characters, 2000)}  # with their steps


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype(F32), data.target


@cache
def _text() -> tuple[np.ndarray, int]:
    text = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    letters, numbers = np.unique(np.frombuffer(text.encode("ascii", "replace"), np.uint8), return_inverse=True)
    return numbers, len(letters)


@cache
def _ratings() -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[int, int]]:
    rng, shape = np.random.default_rng(0), (2000, 1500)
    whole = rng.standard_normal((shape[0], 8)) @ rng.standard_normal((8, shape[1])) / np.sqrt(8)
    which = rng.choice(whole.size, whole.size // 20, replace=False)
    values = whole.ravel()[which] + 0.1 * rng.standard_normal(len(which))
    return (which // shape[1], which % shape[1], values.astype(F32)), shape


def _dense(rng: np.random.Generator, inputs: int, outputs: int) -> list[np.ndarray]:
    return [(rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(F32), np.zeros(outputs, F32)]


def _net(w: list[np.ndarray], x: np.ndarray, y: np.ndarray, inputs: bool = False) -> tuple[float, list[np.ndarray]]:
    """The loss of a net of two layers, and the gradients of its weights, and at the end that of `x`
    if asked for."""
    hidden = np.maximum(x @ w[0] + w[1], 0)
    scores = hidden @ w[2] + w[3]
    scores -= scores.max(1, keepdims=True)
    each = np.exp(scores)
    each /= each.sum(1, keepdims=True)
    loss = float(-np.log(np.maximum(each[np.arange(len(y)), y], 1e-30)).mean())
    each[np.arange(len(y)), y] -= 1
    each /= F32(len(y))
    back = (each @ w[2].T) * (hidden > 0)
    grads = [x.T @ back, back.sum(0), hidden.T @ each, each.sum(0)]
    return loss, [*grads, back @ w[0].T] if inputs else grads
