"""What MXNet keeps in `mxnet.optimizer.contrib`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mxopt.errors import ArgumentError
from mxopt.optimizer.base import Index, register
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.rules import adaptive

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mxopt.optimizer.options import OptionsAndRate

__all__ = ["GroupAdaGrad"]


@register
class GroupAdaGrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html, with one history for each row: the sum of the means of the
    squares of its gradients. No weight decay.

    Parameters
    ----------
    eps : float
        Added inside the root at every update.
    **kwargs
        See `Optimizer`.
    """

    rule = adaptive.group_adagrad
    lazy_update = True

    def __init__(self, eps: float = 1e-5, **kwargs: Unpack[OptionsAndRate]) -> None:
        super().__init__(**kwargs)
        self.eps = eps
        if self.wd:
            raise ArgumentError(f"GroupAdaGrad has no weight decay, got wd={self.wd}")

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.eps
