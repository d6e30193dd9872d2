"""The options of `mxopt.torch.Optimizer` as type checkers see them. Written by
`scripts/overloads`."""

from __future__ import annotations

import torch

from mxopt.experimental.optim.options import OptimizerOptions


class AnyOption(OptimizerOptions, total=False):
    """Every option that some optimizer has, by PyTorch's names and by those of `mxopt.create`."""

    alpha: float
    amsgrad: bool
    batch_scale: int
    begin_epoch: int
    beta: float
    beta1: float
    beta2: float
    beta2_decay: float
    betas: tuple[float, float]
    bias_correction: bool
    centered: bool
    clip_gradient: float | None
    clip_threshold: float
    clip_weights: float | None
    correct_bias: bool
    d: float
    dampening: float
    decay_rate: float
    eps: float | tuple[float | None, float]
    epsilon: float
    epsilon1: float
    epsilon2: float
    eta: float
    etas: tuple[float, float]
    gamma1: float
    gamma2: float
    initial_accumulator_value: float
    lambd: float
    lamda: float
    lamda1: float
    learning_rate: float | None
    lower_bound: float | None
    lr: float | torch.Tensor | None
    lr_decay: float
    maximize: bool
    momentum: float
    momentum_correction: bool
    momentum_decay: float
    nesterov: bool
    num_epochs: int
    relative_step: bool
    rho: float
    schedule_decay: float
    step_sizes: tuple[float, float]
    t0: float
    updates_per_epoch: int
    upper_bound: float | None
    warmup_epochs: int
    warmup_strategy: str
    wd: float
    wd_lh: float | None
    weight_decay: float
