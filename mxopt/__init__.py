"""Optimizers that update NumPy and CuPy arrays in place, by name, here or in a parameter server."""

import mxopt.role  # noqa: F401 first, since it may replace the process

# isort: split
from mxopt import document, errors, experimental, kvstore, kvstore as kv, lr_scheduler, nn, optimizer, sparse
from mxopt.averages import ExponentialMovingAverage
from mxopt.clipping import clip_global_norm
from mxopt.curves import curve
from mxopt.engine import get_num_threads, set_num_threads, use_engine
from mxopt.optimizer import Optimizer, Updater, create, get_updater, register
from mxopt.parameter import Parameter
from mxopt.trainer import Trainer

__all__ = [
    "ExponentialMovingAverage", "Optimizer", "Parameter", "Trainer", "Updater", "clip_global_norm", "create", "curve",
    "document", "errors", "experimental", "get_num_threads", "get_updater", "kv", "kvstore", "lr_scheduler", "nn",
    "optimizer", "register", "set_num_threads", "sparse", "use_engine",
]  # fmt: skip
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return __all__
