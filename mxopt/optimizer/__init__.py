"""MXNet's optimizers on NumPy and CuPy arrays: `create('adam', learning_rate=1e-3)`,
`get_updater`."""

from typing import TYPE_CHECKING

from mxopt.optimizer import contrib
from mxopt.optimizer.adam import FTML, AdaBelief, Adam, Adamax, AdamW, Nadam
from mxopt.optimizer.adaptive import AdaDelta, Adafactor, AdaGrad, Ftrl, RMSProp
from mxopt.optimizer.base import Optimizer, register
from mxopt.optimizer.contrib import GroupAdaGrad
from mxopt.optimizer.elementwise import NDabs
from mxopt.optimizer.layerwise import LAMB, LANS, LARS, LBSGD
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.optimizer.sgd import DCASGD, NAG, SGD, SGLD, Lion, Signum, Test, ccSGD
from mxopt.optimizer.updater import Updater, get_updater

__all__ = [
    "DCASGD", "FTML", "LAMB", "LANS", "LARS", "LBSGD", "NAG", "SGD", "SGLD",
    "AdaBelief", "AdaDelta", "AdaGrad", "Adafactor", "Adam", "AdamW", "Adamax", "Ftrl", "GroupAdaGrad", "Lion",
    "NDabs", "Nadam", "Optimizer", "RMSProp", "RuleOptimizer", "Signum", "Test", "Updater", "ccSGD",
    "contrib", "create", "get_updater", "register",
]  # fmt: skip

if TYPE_CHECKING:
    from mxopt.optimizer.named import create
else:
    create = Optimizer.create_optimizer


def __dir__() -> list[str]:
    return __all__
