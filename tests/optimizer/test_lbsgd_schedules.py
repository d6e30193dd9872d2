"""LBSGD asks its schedule at each call, before it counts: what is assigned to the schedule counts
from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mxopt
from mxopt import Parameter, Trainer
from mxopt.lr_scheduler import FactorScheduler

# MXNet 1.9.1's first and last weight after 8 calls, by batch_scale and number of parameters; 0.25
# is assigned to `base_lr` before call 2, 3 and so on.
MXNET = {
    (1, 1): ([-1.49609375, -2.24609375, -2.7421875, -2.984375, -3.09375, -3.125, -3.09375],) * 2,
    (1, 2): (
        [-1.49609375, -2.4921875, -2.984375, -3.21875, -3.3125, -3.3125, -3.21875],
        [-1.248046875, -1.74609375, -1.9921875, -2.109375, -2.15625, -2.15625, -2.109375],
    ),
    (2, 1): ([-0.6640625, -2.1640625, -2.328125, -2.65625, -2.8125, -2.75, -2.875],) * 2,
    (2, 2): (
        [-0.6640625, -2.328125, -2.65625, -2.8125, -3.125, -2.875, -3.125],
        [-0.33203125, -1.1640625, -1.328125, -1.40625, -1.5625, -1.4375, -1.5625],
    ),
    (3, 1): ([-0.421875, -0.421875, -1.59375, -1.6875, -1.875, -1.6875, -1.6875],) * 2,
    (3, 2): (
        [-0.421875, -0.84375, -1.6875, -1.875, -2.25, -1.6875, -1.6875],
        [-0.2109375, -0.421875, -0.84375, -0.9375, -1.125, -0.84375, -0.84375],
    ),
}
every = pytest.mark.parametrize(("scale", "parameters"), MXNET)


def made(scale: int) -> mxopt.Optimizer:
    schedule = FactorScheduler(1, 0.5, base_lr=1.0)
    return mxopt.create("lbsgd", learning_rate=1.0, batch_scale=scale, warmup_epochs=0, lr_scheduler=schedule)


@every
@pytest.mark.parametrize("listed", [False, True])
def test_a_rate_that_is_assigned_between_two_calls_gives_mxnets_weights(
    scale: int, parameters: int, listed: bool
) -> None:
    for at, ends in enumerate(zip(*MXNET[scale, parameters], strict=True), 1):
        optimizer, one = made(scale), np.ones(1, np.float32)
        updater, weights = mxopt.get_updater(optimizer), [np.zeros(1, np.float32) for _ in range(parameters)]
        for call in range(8):
            if call == at:
                optimizer.lr_scheduler.base_lr = 0.25
            if listed:
                updater(list(range(parameters)), [one] * parameters, weights)
            else:
                for k, weight in enumerate(weights):
                    updater(k, one, weight)
        assert (weights[0].item(), weights[-1].item()) == ends


@every
def test_it_counts_from_there_where_training_goes_on_from_a_file(tmp_path: Path, scale: int, parameters: int) -> None:
    for at, ends in enumerate(zip(*MXNET[scale, parameters], strict=True), 1):
        params = [Parameter(np.zeros(1, np.float32), f"p{k}_weight") for k in range(parameters)]
        trainer = Trainer(params, made(scale), kvstore=None)
        for call in range(8):
            if call == at:
                trainer.save_states(tmp_path / "states")
                params = [Parameter(p.value, p.name) for p in params]
                trainer = Trainer(params, made(scale), kvstore=None)
                trainer.load_states(tmp_path / "states")
                trainer.optimizer.lr_scheduler.base_lr = 0.25  # type: ignore[union-attr]
            for param in params:
                param.grad = np.ones(1, np.float32)
            trainer.step(1)
        assert (params[0].value.item(), params[-1].value.item()) == ends
