"""Trains a PyTorch model with mxopt's LAMB: the parameters are updated in place, in PyTorch's own
memory.

    python docs/examples/torch_lamb.py [--dtype bfloat16]

Needs scikit-learn and PyTorch: pip install '.[examples]'
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import mxopt

EPOCHS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the model")
    dtype = getattr(torch, parser.parse_args().dtype)

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16 - 0.5, dtype=dtype)
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[450:], order[:450]

    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(dtype)
    parameters = list(model.parameters())
    addresses = [p.data_ptr() for p in parameters]
    schedule = mxopt.lr_scheduler.CosineScheduler(EPOCHS * len(train.split(64)), base_lr=0.01, warmup_steps=50)
    # With 16-bit weights the updates are made in float32 master copies.
    optimizer = mxopt.create("lamb", learning_rate=0.01, lr_scheduler=schedule, multi_precision=dtype is torch.bfloat16)
    updater = mxopt.get_updater(optimizer)

    for epoch in range(EPOCHS):
        for batch in train[torch.randperm(len(train))].split(64):
            loss = nn.functional.cross_entropy(model(images[batch]).float(), labels[batch])
            model.zero_grad()
            loss.backward()
            updater(list(range(len(parameters))), [p.grad for p in parameters], parameters)
        with torch.no_grad():
            accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
        print(f"\repoch {epoch + 1:2}  loss {loss.item():.4f}  test accuracy {accuracy:.2%}", end="", flush=True)
    print()
    assert addresses == [p.data_ptr() for p in parameters], "a parameter has moved"
    if accuracy < 0.97:
        raise SystemExit("the test accuracy is below 97 %")


if __name__ == "__main__":
    main()
