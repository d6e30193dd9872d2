"""MindSpore's `mindspore.nn.Optimizer`, its subclasses and its learning rate schedules, over NumPy
and CuPy arrays.

All raise TypeError or ValueError for an argument of another type, or out of range; optimizers also
what `Optimizer` raises.
"""

from mxopt.nn.adafactor import AdaFactor
from mxopt.nn.adam import Adam, AdaMax, AdamOffload, AdamWeightDecay, LazyAdam
from mxopt.nn.adaptive import FTRL, Adadelta, Adagrad, ProximalAdagrad, RMSProp
from mxopt.nn.dynamic_lr import (
    cosine_decay_lr,
    exponential_decay_lr,
    inverse_decay_lr,
    natural_exp_decay_lr,
    piecewise_constant_lr,
    polynomial_decay_lr,
    warmup_lr,
)
from mxopt.nn.family import NN as _NN  # noqa: F401 so that stores and Trainers take them
from mxopt.nn.layerwise import LARS, Lamb
from mxopt.nn.learning_rate_schedule import (
    CosineDecayLR,
    ExponentialDecayLR,
    InverseDecayLR,
    LearningRateSchedule,
    NaturalExpDecayLR,
    PolynomialDecayLR,
    WarmUpLR,
)
from mxopt.nn.optimizer import Optimizer
from mxopt.nn.ruled import RuleOptimizer
from mxopt.nn.sgd import ASGD, SGD, Momentum, Rprop

__all__ = [
    "ASGD", "FTRL", "LARS", "SGD", "AdaFactor", "AdaMax", "Adadelta", "Adagrad", "Adam", "AdamOffload",
    "AdamWeightDecay", "CosineDecayLR", "ExponentialDecayLR", "InverseDecayLR", "Lamb", "LazyAdam",
    "LearningRateSchedule", "Momentum", "NaturalExpDecayLR", "Optimizer", "PolynomialDecayLR", "ProximalAdagrad",
    "RMSProp", "Rprop", "RuleOptimizer", "WarmUpLR", "cosine_decay_lr", "exponential_decay_lr", "inverse_decay_lr",
    "natural_exp_decay_lr", "piecewise_constant_lr", "polynomial_decay_lr", "warmup_lr",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
