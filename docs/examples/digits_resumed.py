"""Learns handwritten digits with several workers, and goes on where a job left off.

    mxopt-launch -n 2 -s 2 --durability journal --state-dir D python docs/examples/digits_resumed.py
    mxopt-launch -n 2 -s 2 --resume D python docs/examples/digits_resumed.py

The first job may be killed at any time, whole or in part: the second ends with the weights, bit for
bit, that the first would have had. Nothing but `store.round` tells the script where it is; each
batch is a function of the round. Needs scikit-learn: pip install '.[examples]'
"""

import argparse
import hashlib
import os
import signal

import numpy as np
from sklearn.datasets import load_digits

import mxopt
from mxopt import kvstore

BATCH = 32


def batch_of(images: np.ndarray, labels: np.ndarray, round: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """What a worker learns from in a round, whichever process it is."""
    chosen = np.random.default_rng([round, rank]).integers(0, len(images), BATCH)
    return images[chosen], labels[chosen]


def gradient(weight: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy of a softmax regression."""
    scores = images @ weight
    scores -= scores.max(axis=1, keepdims=True)
    probabilities = np.exp(scores)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return (images.T @ probabilities / len(labels)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--die-in", type=int, metavar="ROUND", help="a worker kills itself then, if it began before")
    options = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    images = np.hstack([images / 16, np.ones((len(images), 1))]).astype(np.float32)
    store = kvstore.create("dist_sync")
    store.set_optimizer(mxopt.create("adam", learning_rate=0.01, rescale_grad=1 / store.num_workers))
    weight = np.zeros((images.shape[1], 10), np.float32)
    store.init("weight", weight)  # where the servers have one already, that stays
    store.pull("weight", weight)

    began = store.round("weight")
    for round in range(began, options.rounds):
        if round == options.die_in and store.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        store.push("weight", gradient(weight, *batch_of(images, labels, round, store.rank)))
        store.pull("weight", weight)

    right = (images @ weight).argmax(axis=1) == labels
    mark = hashlib.sha256(weight.tobytes()).hexdigest()[:16]
    if store.rank == 0:
        print(f"from round {began}: {right.mean():.1%} of the digits, weights {mark}")


if __name__ == "__main__":
    main()
