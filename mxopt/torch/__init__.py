"""mxopt's optimizers for models of PyTorch: `mxopt.torch.Optimizer(model.parameters(), "lamb",
lr=1e-3)`."""

try:
    from mxopt.torch.optimizer import Optimizer
except ModuleNotFoundError as missing:
    if missing.name != "torch":
        raise
    raise ImportError("mxopt.torch needs the package torch: pip install 'mxopt[torch]'") from missing

__all__ = ["Optimizer"]


def __dir__() -> list[str]:
    return __all__
