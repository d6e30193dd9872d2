"""Trains a classifier of handwritten digits with `create`, an `Updater` and a scheduler, in plain
NumPy.

Half way its weights and states are saved. At the end a fresh process loads them, trains the second
half again, and arrives at the same weights, bit for bit.

    python docs/examples/digits.py [--optimizer adam] [--resume FILE]

Needs scikit-learn and rich: pip install '.[examples]'
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits

import mxopt
from mxopt.document import dump_document, load_document, write_file

EPOCHS, BATCH, HIDDEN = 40, 64, 256
RATES = {"adam": 3e-3, "sgd": 0.1, "nag": 0.1, "lamb": 0.02, "rmsprop": 1e-3}
OPTIONS = {"sgd": {"momentum": 0.9}, "nag": {"momentum": 0.9}}
Arrays = dict[str, np.ndarray]


def load_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1,797 scanned digits of 8 x 8 pixels, split 3 : 1: training images and labels, test images
    and labels."""
    digits = load_digits()
    images = (digits.data / 16 - 0.5).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[450:], order[:450]
    return images[train], digits.target[train], images[test], digits.target[test]


def new_weights() -> Arrays:
    rng = np.random.default_rng(1)
    sizes = [64, HIDDEN, HIDDEN, 10]
    weights: Arrays = {}
    for layer, (n, m) in enumerate(pairwise(sizes)):
        weights[f"dense{layer}_weight"] = (rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(np.float32)
        weights[f"dense{layer}_bias"] = np.zeros(m, np.float32)
    return weights


def forward(weights: Arrays, images: np.ndarray) -> list[np.ndarray]:
    """The activations of all layers; the last are the scores."""
    activations = [images]
    for layer in range(3):
        x = activations[-1] @ weights[f"dense{layer}_weight"] + weights[f"dense{layer}_bias"]
        activations.append(np.maximum(x, 0) if layer < 2 else x)
    return activations


def gradients(weights: Arrays, images: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
    """The mean cross entropy and its gradients."""
    *hidden, scores = forward(weights, images)
    scores = scores - scores.max(1, keepdims=True)
    chances = np.exp(scores)
    chances /= chances.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(chances[rows, labels]).mean()
    error = chances
    error[rows, labels] -= 1
    error /= len(labels)
    grads: Arrays = {}
    for layer in (2, 1, 0):
        grads[f"dense{layer}_weight"] = hidden[layer].T @ error
        grads[f"dense{layer}_bias"] = error.sum(0)
        error = (error @ weights[f"dense{layer}_weight"].T) * (hidden[layer] > 0)
    return float(loss), grads


def accuracy(weights: Arrays, images: np.ndarray, labels: np.ndarray) -> float:
    return float((forward(weights, images)[-1].argmax(1) == labels).mean())


def train(weights: Arrays, updater: mxopt.Updater, epochs: range, progress: Progress) -> None:
    """Trains in place. The order of the images depends on the epoch alone, so that training can be
    resumed."""
    images, labels, test_images, test_labels = load_data()
    names = list(weights)
    task = progress.add_task("training", total=len(epochs), loss=0.0, accuracy=0.0)
    for epoch in epochs:
        order = np.random.default_rng(epoch).permutation(len(images))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            loss, grads = gradients(weights, images[batch], labels[batch])
            updater(list(range(len(names))), [grads[n] for n in names], [weights[n] for n in names])
        progress.update(task, advance=1, loss=loss, accuracy=accuracy(weights, test_images, test_labels))


def new_updater(name: str, weights: Arrays) -> mxopt.Updater:
    steps = EPOCHS * (-(-1347 // BATCH))
    schedule = mxopt.lr_scheduler.CosineScheduler(steps, base_lr=RATES[name], final_lr=1e-5, warmup_steps=steps // 20)
    return mxopt.get_updater(
        mxopt.create(
            name,
            learning_rate=RATES[name],
            lr_scheduler=schedule,
            wd=1e-4,
            param_idx2name=dict(enumerate(weights)),
            **OPTIONS.get(name, {}),
        )
    )


def save(path: Path, weights: Arrays, updater: mxopt.Updater) -> None:
    write_file(path, dump_document({"weights": weights, "updater": updater.get_states(dump_optimizer=True)}))


def load(path: Path, updater: mxopt.Updater) -> Arrays:
    document = load_document(path.read_bytes())
    updater.set_states(document["updater"])
    return document["weights"]


def fingerprint(weights: Arrays) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in weights.values())).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--optimizer", choices=sorted(RATES), default="adam")
    parser.add_argument("--resume", type=Path, help="carry on from a file that an earlier run saved half way")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    bar = "[bold]{task.description}", BarColumn(), "epoch {task.completed:.0f}/{task.total:.0f}"
    columns = (*bar, "loss {task.fields[loss]:.4f}", "test accuracy {task.fields[accuracy]:.2%}")
    with Progress(*(TextColumn(c) if isinstance(c, str) else c for c in columns), TimeElapsedColumn()) as progress:
        weights = new_weights()
        updater = new_updater(options.optimizer, weights)
        if options.resume:
            weights = load(options.resume, updater)
            train(weights, updater, range(EPOCHS // 2, EPOCHS), progress)
        else:
            path = Path(tempfile.mkdtemp(prefix="mxopt-")) / "half-way.mxopt"
            train(weights, updater, range(EPOCHS // 2), progress)
            save(path, weights, updater)
            train(weights, updater, range(EPOCHS // 2, EPOCHS), progress)
    reached = accuracy(weights, *load_data()[2:])
    console.print(f"test accuracy [bold]{reached:.2%}[/], weights [cyan]{fingerprint(weights)}[/]")
    if options.resume:
        return
    console.print(
        f"half-way weights and states: {path} ({path.stat().st_size:,} bytes); training on in a fresh process"
    )
    command = [sys.executable, __file__, "--optimizer", options.optimizer, "--resume", str(path)]
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if fingerprint(weights) not in again:
        sys.exit(f"the resumed run ended with other weights:\n{again}")
    console.print("[green]the resumed run ended with the same weights, bit for bit[/]")
    if reached < 0.97:
        sys.exit("the test accuracy is below 97 %")


if __name__ == "__main__":
    main()
