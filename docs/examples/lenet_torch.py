"""LeNet-5 on handwritten digits: PyTorch computes the gradients, mxopt updates PyTorch's own
weights in place.

    python docs/examples/lenet_torch.py

Needs scikit-learn and PyTorch: pip install '.[examples]'
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from mxopt.experimental import optim


def digits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """1,797 scanned digits, enlarged to 16 x 16: images and labels to train with, then 360 to test
    with."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    pixels = images[order].reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3)
    x, y = torch.from_numpy(pixels.astype(np.float32) / 16), torch.from_numpy(labels[order])
    return x[360:], y[360:], x[:360], y[:360]


def lenet5() -> nn.Module:
    """LeNet-5, https://doi.org/10.1109/5.726791, for images of 16 x 16."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def main(epochs: int = 8, batch: int = 32) -> float:
    """Trains, tells how it goes, and returns the share of test images that were recognised."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more only get in each other's way with images this small
    train_x, train_y, test_x, test_y = digits()
    net = lenet5()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adam(net.parameters(), lr=0.003)  # shares the memory of the weights
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.3)

    def train_step(data: torch.Tensor, label: torch.Tensor) -> float:
        loss = loss_fn(net(data), label)
        grads = torch.autograd.grad(loss, optimizer.parameters)
        optimizer(grads)
        return loss.item()

    accuracy = 0.0
    for epoch in range(1, epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        losses = [train_step(train_x[rows], train_y[rows]) for rows in torch.randperm(len(train_y)).split(batch)]
        scheduler.step()
        with torch.no_grad():
            accuracy = (net(test_x).argmax(1) == test_y).float().mean().item()
        print(f"epoch {epoch:2}  rate {rate:.5f}  loss {np.mean(losses):.4f}  test {accuracy:.1%}", flush=True)
    return accuracy


if __name__ == "__main__":
    main()
