"""All optimizers of `mxopt.nn`, with options that matter."""

from __future__ import annotations

from collections.abc import Callable

from mxopt import nn

SCHEDULE = nn.ExponentialDecayLR(0.1, 0.5, 3)

# Every class, and every option that chooses another rule.
MAKE: dict[str, Callable[..., nn.Optimizer]] = {
    "SGD": lambda p, **k: nn.SGD(p, **k),
    "SGD, momentum": lambda p, **k: nn.SGD(p, momentum=0.9, dampening=0.1, **k),
    "SGD, nesterov": lambda p, **k: nn.SGD(p, momentum=0.9, nesterov=True, **k),
    "Momentum": lambda p, **k: nn.Momentum(p, **{"learning_rate": SCHEDULE, **k}, momentum=0.9),
    "Adam": lambda p, **k: nn.Adam(p, **k),
    "Adam, nesterov": lambda p, **k: nn.Adam(p, use_nesterov=True, **k),
    "Adam, amsgrad": lambda p, **k: nn.Adam(p, use_amsgrad=True, **k),
    "LazyAdam": lambda p, **k: nn.LazyAdam(p, **k),
    "AdamOffload": lambda p, **k: nn.AdamOffload(p, **k),
    "AdamWeightDecay": lambda p, **k: nn.AdamWeightDecay(p, **k),
    "AdaMax": lambda p, **k: nn.AdaMax(p, **k),
    "Adadelta": lambda p, **k: nn.Adadelta(p, **k),
    "Adagrad": lambda p, **k: nn.Adagrad(p, **k),
    "Adagrad, fixed": lambda p, **k: nn.Adagrad(p, update_slots=False, **k),
    "ProximalAdagrad": lambda p, **k: nn.ProximalAdagrad(p, l1=0.01, l2=0.01, **k),
    "RMSProp": lambda p, **k: nn.RMSProp(p, **k),
    "RMSProp, momentum": lambda p, **k: nn.RMSProp(p, momentum=0.9, **k),
    "RMSProp, centered": lambda p, **k: nn.RMSProp(p, centered=True, **k),
    "FTRL": lambda p, **k: nn.FTRL(p, l1=0.01, l2=0.01, **k),
    "FTRL, power": lambda p, **k: nn.FTRL(p, lr_power=-0.7, **k),
    "ASGD": lambda p, **k: nn.ASGD(p, **{"learning_rate": SCHEDULE, **k}, lambd=0.1, t0=2.0),
    "Rprop": lambda p, **k: nn.Rprop(p, **k),
    "AdaFactor": lambda p, **k: nn.AdaFactor(p, **k),
    "AdaFactor, no mean": lambda p, **k: nn.AdaFactor(p, beta1=0.0, **k),
    "Lamb": lambda p, **k: nn.Lamb(p, **{"learning_rate": SCHEDULE, **k}),
    "LARS": lambda p, **k: nn.LARS(nn.Momentum(p, 0.5, 0.9, **k), use_clip=True),
}
