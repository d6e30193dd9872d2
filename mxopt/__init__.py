"""Optimizers that update NumPy and CuPy arrays in place, by name."""

from mxopt import lr_scheduler, optimizer, sparse
from mxopt.engine import get_num_threads, set_num_threads, use_engine
from mxopt.optimizer import Optimizer, Updater, create, get_updater, register

__all__ = [
    "Optimizer", "Updater", "create", "get_num_threads", "get_updater", "lr_scheduler", "optimizer", "register",
    "set_num_threads", "sparse", "use_engine",
]  # fmt: skip
__version__ = "0.1.0"
