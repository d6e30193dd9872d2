"""`mindspore.experimental` on NumPy and CuPy arrays."""

from mxopt.experimental import optim

__all__ = ["optim"]


def __dir__() -> list[str]:
    return __all__
