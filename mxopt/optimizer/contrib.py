"""The optimizer of `mxnet.optimizer.contrib`."""

from __future__ import annotations

from typing import Annotated

from mxopt.errors import ArgumentError
from mxopt.optimizer.base import Index, register
from mxopt.optimizer.options import OptionsAndRate
from mxopt.optimizer.ruled import RuleOptimizer
from mxopt.options import Option, Unpack, number
from mxopt.rules import adaptive
from mxopt.rules.rule import Rule

__all__ = ["GroupAdaGrad"]


def __dir__() -> list[str]:
    return __all__


@register
class GroupAdaGrad(RuleOptimizer):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html, with one history for each row: the sum of
    the means of the squares of its gradients. No weight decay.
    """

    rule: Rule = adaptive.group_adagrad
    lazy_update = True

    def __init__(
        self,
        eps: Annotated[float, Option("", "added inside the root at every update")] = 1e-5,
        **base: Unpack[OptionsAndRate],
    ) -> None:
        if number(f"{type(self).__name__}: wd", base.get("wd", 0.0)):
            raise ArgumentError(f"GroupAdaGrad has no weight decay, got wd={base['wd']}")
        super().__init__(**base)
        self.eps = eps

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        return lr, self.eps
