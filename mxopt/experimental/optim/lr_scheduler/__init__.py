"""`mindspore.experimental.optim.lr_scheduler`: schedules that set the rates of an optimizer's
groups step by step.

All raise TypeError or ValueError for an argument of another type, or out of range.
"""

from mxopt.experimental.optim.lr_scheduler.base import LRScheduler
from mxopt.experimental.optim.lr_scheduler.cycles import CosineAnnealingWarmRestarts, CyclicLR
from mxopt.experimental.optim.lr_scheduler.factors import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from mxopt.experimental.optim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from mxopt.experimental.optim.lr_scheduler.plateau import ReduceLROnPlateau
from mxopt.experimental.optim.lr_scheduler.sequential import SequentialLR

__all__ = [
    "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR", "LRScheduler",
    "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR",
    "StepLR",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
