"""Every schedule of `mxopt.experimental.optim`, and an optimizer to be scheduled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules

TABLE: dict[str, Callable[[Any, Any], schedules.LRScheduler]] = {
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5, 5]),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.1, 0.7, 6),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7, 0.01),
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda t: 0.9),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, mode="triangular2"),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
}

every = pytest.mark.parametrize("make", TABLE.values(), ids=TABLE)


def sgd(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [np.zeros(1, np.float32)], "lr": lr} for lr in rates or (0.1,)], lr=0.1)
