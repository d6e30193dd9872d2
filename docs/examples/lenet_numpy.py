"""LeNet-5 on handwritten digits in plain NumPy: forward, backward, and mxopt for the updates.

    python docs/examples/lenet_numpy.py

Needs scikit-learn: pip install '.[examples]'
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices this small are slower with more

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits

from mxopt import Parameter
from mxopt.experimental import optim

Arrays = dict[str, np.ndarray]


def digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1,797 scanned digits, enlarged to 16 x 16: images and labels to train with, then 360 to test
    with."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    pixels = images[order].reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3)
    x, y = pixels.astype(np.float32) / 16, labels[order]
    return x[360:], y[360:], x[:360], y[:360]


# Layers. Each returns its output, and a function from the output's gradient to those of its inputs.

Layer = tuple[np.ndarray, Callable[[np.ndarray], Any]]


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Layer:
    """(n, c, h, w) to (n, filters, h, w): every k x k window becomes a row, and the filters a
    matrix."""
    n, c, h, w = x.shape
    filters, _, k, _ = weight.shape
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    rows = sliding_window_view(padded, (k, k), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)
    flat = weight.reshape(filters, -1)
    out = (rows @ flat.T + bias).reshape(n, h, w, filters).transpose(0, 3, 1, 2)

    def backward(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grad = grad.transpose(0, 2, 3, 1).reshape(-1, filters)
        windows = (grad @ flat).reshape(n, h, w, c, k, k).transpose(0, 3, 4, 5, 1, 2)
        spread = np.zeros_like(padded)
        for i in range(k):
            for j in range(k):
                spread[:, :, i : i + h, j : j + w] += windows[:, :, i, j]
        inner = spread[:, :, k // 2 : k // 2 + h, k // 2 : k // 2 + w]
        return inner, (grad.T @ rows).reshape(weight.shape), grad.sum(0)

    return out, backward


def dense(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Layer:
    """(n, inputs) to (n, outputs)."""
    return x @ weight.T + bias, lambda grad: (grad @ weight, grad.T @ x, grad.sum(0))


def relu(x: np.ndarray) -> Layer:
    return np.maximum(x, 0), lambda grad: grad * (x > 0)


def flatten(x: np.ndarray) -> Layer:
    return x.reshape(len(x), -1), lambda grad: grad.reshape(x.shape)


def pool(x: np.ndarray) -> Layer:
    """The largest of every 2 x 2 square."""
    n, c, h, w = x.shape
    squares = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    which = squares.argmax(-1)[..., None]

    def backward(grad: np.ndarray) -> np.ndarray:
        spread = np.zeros_like(squares)
        np.put_along_axis(spread, which, grad[..., None], -1)
        return spread.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(x.shape)

    return np.take_along_axis(squares, which, -1)[..., 0], backward


# LeNet-5, https://doi.org/10.1109/5.726791, for images of 16 x 16: the layers, and the shapes of
# the weights they have.
NET = [
    ("conv1", conv), ("", relu), ("", pool),
    ("conv2", conv), ("", relu), ("", pool), ("", flatten),
    ("fc1", dense), ("", relu), ("fc2", dense), ("", relu), ("fc3", dense),
]  # fmt: skip
SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 256), "fc2": (84, 120), "fc3": (10, 84)}


def lenet5(rng: np.random.Generator) -> Arrays:
    weights = {}
    for name, shape in SHAPES.items():
        size = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = rng.normal(0, size, shape).astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return weights


def forward(weights: Arrays, x: np.ndarray) -> Layer:
    """Class scores (n, 10), and the function from their gradient to those of all weights."""
    tape = []
    for name, layer in NET:
        x, back = layer(x, weights[f"{name}.weight"], weights[f"{name}.bias"]) if name else layer(x)
        tape.append((name, back))

    def backward(grad: np.ndarray) -> Arrays:
        grads = {}
        for name, back in reversed(tape):
            if name:
                grad, grads[f"{name}.weight"], grads[f"{name}.bias"] = back(grad)
            else:
                grad = back(grad)
        return grads

    return x, backward


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean loss, and its gradient."""
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(p[rows, labels] + 1e-12).mean()
    p[rows, labels] -= 1
    return float(loss), p / np.float32(len(labels))


def main(epochs: int = 8, batch: int = 32) -> float:
    """Trains, tells how it goes, and returns the share of test images that were recognised."""
    rng = np.random.default_rng(0)
    train_x, train_y, test_x, test_y = digits()
    weights = lenet5(rng)
    parameters = [Parameter(value, name) for name, value in weights.items()]  # no copies
    optimizer = optim.Adam(parameters, lr=0.003)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.3)

    def train_step(data: np.ndarray, label: np.ndarray) -> float:
        scores, backward = forward(weights, data)
        loss, grad = cross_entropy(scores, label)
        grads = backward(grad)
        optimizer(tuple(grads[parameter.name] for parameter in optimizer.parameters))
        return loss

    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        order = rng.permutation(len(train_y))
        losses = [train_step(train_x[rows], train_y[rows]) for rows in np.split(order, range(batch, len(order), batch))]
        scheduler.step()
        accuracy = float((forward(weights, test_x)[0].argmax(1) == test_y).mean())
        print(f"epoch {epoch:2}  rate {rate:.5f}  loss {np.mean(losses):.4f}  test {accuracy:.1%}", flush=True)
    return accuracy


if __name__ == "__main__":
    main()
