"""mxopt's optimizers for models of PyTorch: `mxopt.torch.Optimizer(model.parameters(), "lamb",
lr=1e-3)`."""

from mxopt.torch.optimizer import Optimizer

__all__ = ["Optimizer"]


def __dir__() -> list[str]:
    return __all__
