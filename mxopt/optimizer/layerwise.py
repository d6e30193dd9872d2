"""LARS, LBSGD, LAMB and LANS."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from mxopt.engine import Tensor, arrays
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import StatesError
from mxopt.optimizer.adam import ArithmeticMoments
from mxopt.optimizer.base import LISTS, Index, register
from mxopt.optimizer.momentum import MomentumOptimizer
from mxopt.optimizer.options import (
    Beta1,
    Beta2,
    Epsilon,
    Lazy,
    LBSGDOptions,
    Momentum,
    OptimizerOptions,
    OptionsAndRate,
    Rate,
)
from mxopt.options import Option, Unpack
from mxopt.rules import layerwise, sgd
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Document, Plain, State


@register
class LARS(MomentumOptimizer):
    """SGD whose rate is scaled for each tensor by the ratio of its norms, arXiv:1708.03888.

    Parameters whose names end in gamma, beta or bias take the plain rate; weight decay is off for
    names that don't end in `_weight`.
    """

    rules = layerwise.lars, layerwise.lars_momentum
    inner_first = True
    aggregates = True
    decayed_endings: ClassVar[tuple[str, ...]] = ("_weight",)

    def __init__(
        self,
        momentum: Momentum = 0.0,
        lazy_update: Lazy = True,
        eta: Annotated[float, Option("", "the trust coefficient")] = 0.001,
        eps: Annotated[float, Option("", "added to the denominator")] = 0,
        momentum_correction: Annotated[
            bool,
            Option("", "multiply the momentum by the ratio of the learning rate to the one before, arXiv:1706.02677"),
        ] = True,
        **base: Unpack[OptionsAndRate],
    ) -> None:
        super().__init__(**base)
        self.momentum = momentum
        self.lazy_update = lazy_update
        self.eta = eta
        self.eps = eps
        self.momentum_correction = momentum_correction
        self.previous_lr: dict[Index, float] = {}  # at each parameter's last update, before multipliers

    def groups(self, indices: Sequence[Index]) -> Sequence[Hashable]:
        return [(self._exempt(index), self.previous_lr.get(index)) for index in indices]

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        eta = math.nan if self._exempt(index) else self.eta
        if not self.has_velocity:
            return lr, eta, self.eps
        return lr, eta, self.eps, self.momentum * self._correction(index)

    def _exempt(self, index: Index) -> bool:
        name = self.idx2name.get(index, index)
        return isinstance(name, str) and name.endswith(("gamma", "beta", "bias"))

    def _correction(self, index: Index) -> float:
        before = self.previous_lr.get(index)
        return self.learning_rate / before if before and self.momentum_correction else 1.0

    counts_more = True

    def _also_counted(self, indices: Sequence[Index]) -> Iterable[object]:
        rate = self.learning_rate
        if len(indices) == 1 and self.previous_lr.get(indices[0]) == rate:
            return ()
        return map(self.previous_lr.update, [dict.fromkeys(indices, rate)])

    def get_counts(self) -> Plain:
        return {**super().get_counts(), "previous_lr": dict(self.previous_lr)}

    def set_counts(self, counts: Document) -> None:
        try:
            previous_lr = {index: float(lr) for index, lr in counts.get("previous_lr", {}).items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise StatesError(f"these are no update counts: {error}") from error
        super().set_counts(counts)
        self.previous_lr = previous_lr


@register
class LBSGD(MomentumOptimizer):
    """SGD for large batches: averages the gradients of several calls, and warms up the rate
    (arXiv:1706.02677) or sets it by norms (arXiv:1708.03888). As in MXNet, a scheduler gives the
    rate before the update is counted.
    """

    rules = sgd.sgd, sgd.sgd_momentum
    lazy_update = True
    own_num_update = True  # a schedule is asked for the update before
    schedules_before_counting = True
    _asked_at: int | None = None

    def __init__(
        self,
        momentum: Momentum = 0.0,
        multi_precision: Annotated[bool, Option("", "as in `Optimizer`")] = False,
        warmup_strategy: Annotated[
            str,
            Option(
                "",
                "'linear', 'power2' or 'sqrt': how the rate grows to `batch_scale` times itself over the warm-up;"
                " 'lars' sets it by the norms instead, and any other name means no growth",
            ),
        ] = "linear",
        warmup_epochs: Annotated[int, Option("", "the length of the warm-up")] = 5,
        batch_scale: Annotated[
            int, Option("[1, inf)", "gradients are averaged over this many calls, the last of which moves the weight")
        ] = 1,
        updates_per_epoch: Annotated[int, Option("", "how many calls an epoch has")] = 32,
        begin_epoch: Annotated[
            int, Option("", "the first call counts as `begin_epoch * updates_per_epoch + 1` of the warm-up")
        ] = 0,
        num_epochs: Annotated[int, Option("", "not used, as in MXNet")] = 60,
        **base: Unpack[LBSGDOptions],
    ) -> None:
        super().__init__(multi_precision=multi_precision, **base)
        self.momentum = momentum
        self.warmup_strategy = warmup_strategy
        self.warmup_epochs = warmup_epochs
        self.batch_scale = batch_scale
        self.updates_per_epoch = updates_per_epoch
        self.begin_epoch = begin_epoch
        self.num_epochs = num_epochs

    @property
    def rule(self) -> Rule:
        if self.warmup_strategy == "lars":
            return layerwise.lbsgd_momentum if self.has_velocity else layerwise.lbsgd
        return self.rules[1] if self.has_velocity else self.rules[0]

    def state_kind(self) -> Plain:
        return {**super().state_kind(), "sums gradients": self.batch_scale > 1}

    @property
    def rescales_first(self) -> bool:
        return self.batch_scale == 1 and self.warmup_strategy != "lars"

    def create_state(self, index: Index, weight: Array) -> State:
        """Velocity or None; with a batch scale the tuple of that and the sum of gradients."""
        velocity = super().create_state(index, weight)
        return velocity if self.batch_scale == 1 else (velocity, self.new_state("sum", weight))

    def new_state(self, name: str, weight: Array) -> Array:
        if name == "sum" and weight.dtype == arrays.BFLOAT16:  # bfloat16 would lose most of what is added
            return arrays.zeros(weight.shape, weight, np.dtype(np.float32))
        return super().new_state(name, weight)

    def state_arrays(self, state: State) -> tuple[Any, ...]:
        if self.batch_scale == 1:
            return super().state_arrays(state)
        velocity, _ = state
        return super().state_arrays(velocity)

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        if self.batch_scale > 1 and self.warmup_strategy != "lars":
            lr *= self._growth(self._calls(t))
        return (lr, self.momentum) if self.has_velocity else (lr,)

    def _calls(self, t: int) -> int:
        return self.begin_epoch * self.updates_per_epoch + t - self.begin_num_update

    def _growth(self, calls: int) -> float:
        """The factor of the rate at a call."""
        warmup = self.warmup_epochs * self.updates_per_epoch
        if calls >= warmup:
            return float(self.batch_scale)
        shares = {"linear": calls / warmup, "power2": (calls / warmup) ** 2, "sqrt": math.sqrt(calls / warmup)}
        share = shares.get(self.warmup_strategy, 0.0) if warmup > 1 else 0.0
        return 1.0 + (self.batch_scale - 1) * share

    def _get_lr(self, index: Index) -> float:
        if self.lr_scheduler is None or "_get_lrs" in self.overridden:
            return super()._get_lr(index)
        at = self.num_update if self._asked_at is None else self._asked_at
        return self._as_rate(self.lr_scheduler(at)) * self._multiplier("lr_mult", index)

    def last_asked(self, num_update: int, counts: Sequence[int]) -> int:
        asked = counts.count(num_update) > 1  # by the second parameter to get there
        return num_update if asked else num_update - 1

    def _update(self, index: Any, weight: Array, grad: Array, state: State, masters: bool) -> None:
        if self.batch_scale == 1 and self.lr_scheduler is None:
            super()._update(index, weight, grad, state, masters)
            return
        if isinstance(index, LISTS):
            for arguments in zip(index, weight, grad, state, strict=True):  # check all before changing one
                self._checked(*arguments, masters)
            self.in_turn(self._update, [(*each, masters) for each in zip(index, weight, grad, state, strict=True)])
            return
        if self.lr_scheduler is not None:
            self._asked_at = self.num_update
        if self.batch_scale == 1:
            super()._update(index, weight, grad, state, masters)
        else:
            uninterrupted(lambda: self._accumulate(index, weight, grad, state, masters))

    def _checked(self, index: Index, weight: Array, grad: Array, state: State, masters: bool) -> tuple[Tensor, Any]:
        """The arrays of an update, and the sum of gradients if there is one. Raises if they don't
        fit."""
        (tensor,) = self._tensors((index,), (weight,), (grad,), (state,), masters)
        tensor.check(self.rule)
        if self.batch_scale == 1:
            return tensor, None
        total = (state if tensor.master is None else self.split(state)[0])[1]
        Tensor(tensor.name, tensor.weight, tensor.grad, (total,)).check(sgd.test)
        return tensor, total

    def _accumulate(self, index: Index, weight: Array, grad: Array, state: State, masters: bool) -> None:
        tensor, total = self._checked(index, weight, grad, state, masters)
        grad = tensor.grad
        count = self._index_update_count.get(index, self.begin_num_update) + 1
        if self._calls(count) % self.batch_scale:
            if self.lr_scheduler is not None:
                self._get_lr(index)  # at each call, as in MXNet: what is assigned to it counts from there
            self._update_count(index)
            _add(total, grad)
            return
        # If a schedule or a subclass's method raises, the sum must stay what it is.
        mean = total if self.lr_scheduler is None and not self.overridden else total.copy()
        _add(mean, grad)
        mean /= self.batch_scale
        mean = mean if tensor.master is not None else mean.astype(weight.dtype, copy=False)
        super()._update(index, weight, mean, state, masters)
        arrays.data_of(total)[...] = 0


def _add(total: Array, grad: Array) -> None:
    """Adds a gradient to a sum, in place."""
    with np.errstate(all="ignore"):
        if isinstance(grad, RowSparse) and not isinstance(total, RowSparse):
            total[grad.indices] += grad.data.astype(total.dtype)
        else:
            total += grad


Bound = Annotated[float | None, Option("", "limit of the weight's norm; None, 0 and less mean none")]


class _Corrected(ArithmeticMoments):
    """The base of LAMB and LANS."""

    bias_correction = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-6,
        lower_bound: Bound = None,
        upper_bound: Bound = None,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, **base)
        self.epsilon = epsilon
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    def scalars(self, index: Index, lr: float, t: int) -> tuple[float, ...]:
        correction1, correction2 = self.corrections(index, t) if self.bias_correction else (1.0, 1.0)
        least, largest = self.lower_bound or 0.0, self.upper_bound
        largest = largest if largest and largest > 0 else math.inf
        return lr, self.beta1, self.beta2, self.epsilon, 1 / correction1, 1 / correction2, least, largest


@register
class LAMB(_Corrected):
    """Adam whose step is scaled for each tensor by the ratio of its norms, arXiv:1904.00962.
    `epsilon` is added to the corrected root.
    """

    rule: Rule = layerwise.lamb
    aggregates = True

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        epsilon: Epsilon = 1e-6,
        lower_bound: Bound = None,
        upper_bound: Bound = None,
        bias_correction: Annotated[bool, Option("", "False leaves the bias corrections out")] = True,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, lower_bound, upper_bound, **base)
        self.bias_correction = bias_correction


@register
class LANS(_Corrected):
    """LAMB with normalised gradients and Nesterov's momentum, arXiv:2006.13484, as in MXNet 2."""

    rule: Rule = layerwise.lans
