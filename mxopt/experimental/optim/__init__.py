"""`mindspore.experimental.optim`: optimizers with parameter groups, called with a tuple of
gradients."""

from mxopt.experimental.optim import lr_scheduler
from mxopt.experimental.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from mxopt.experimental.optim.adaptive import Adadelta, Adagrad, RMSprop, Rprop
from mxopt.experimental.optim.family import Experimental as _Experimental  # noqa: F401 so that stores and Trainers take them
from mxopt.experimental.optim.optimizer import Optimizer
from mxopt.experimental.optim.sgd import ASGD, SGD

__all__ = [
    "ASGD", "SGD",
    "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop",
    "lr_scheduler",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
