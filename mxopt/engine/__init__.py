"""Runs rules on arrays: CuPy's with the engine `cuda`, NumPy's with `llvm`, or with `numpy`, the
reference, if `MXOPT_ENGINE` or `use_engine` says so."""

from mxopt.engine.choice import engine_in_use, use_engine
from mxopt.engine.plan import Plan
from mxopt.engine.steps import Steps
from mxopt.engine.tensor import Tensor
from mxopt.engine.threads import get_num_threads, set_num_threads

__all__ = ["Plan", "Steps", "Tensor", "engine_in_use", "get_num_threads", "set_num_threads", "use_engine"]


def __dir__() -> list[str]:
    return __all__
