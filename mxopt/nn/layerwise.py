"""Steps scaled for each parameter by norms: Lamb, and LARS around another optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from mxopt.engine import Tensor
from mxopt.engine.steps import run
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentTypeError, StatesError
from mxopt.nn.adam import Moments
from mxopt.nn.optimizer import Optimizer
from mxopt.nn.options import Beta1, Beta2, DecayOption, Epsilon, OptimizerOptions, Params, RateOption
from mxopt.nn.ruled import Own, WeightDecay
from mxopt.options import Exact, Option, Unpack
from mxopt.parameter import Parameter, name_of
from mxopt.rules import layerwise, mindspore
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Document, Gradients, Plain


class Lamb(Moments):
    """LAMB, https://arxiv.org/abs/1904.00962: Adam with decoupled weight decay, whose steps are
    scaled to the norm of the parameter."""

    rule: Rule = layerwise.lamb
    decay: ClassVar[WeightDecay] = "the rule's own"

    def __init__(
        self,
        params: Params,
        learning_rate: RateOption,
        beta1: Beta1 = 0.9,
        beta2: Beta2 = 0.999,
        eps: Epsilon = 1e-6,
        weight_decay: DecayOption = 0.0,
        **base: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay, **base)
        self.keep(moments1=0.0, moments2=0.0)

    def scalars(self, lr: float, t: int, own: Own) -> tuple[float, ...]:
        correction1, correction2 = self.corrections(t, own)
        return lr, self.beta1, self.beta2, self.eps, 1 / correction1, 1 / correction2, 0.0, math.inf


def lars_filter(parameter: Parameter) -> bool:
    """Whether LARS adapts the rate of a parameter: unless its name contains 'LayerNorm' or
    'bias'."""
    name = name_of(parameter, "")
    return "LayerNorm" not in name and "bias" not in name


class LARS(Optimizer):
    """LARS, https://arxiv.org/abs/1708.03888: scales the gradients of each parameter for another
    optimizer.

    That gets `trust * (grad + decay * param)`, where `trust = coefficient * |param| / (|grad| +
    decay * |param| + epsilon)`, or 1 if a norm is 0. From then on LARS applies weight decay and
    loss scale, and the other optimizer must no longer be called directly.

    Raises
    ------
    TypeError
        An argument is of a wrong type.
    """

    def __init__(
        self,
        optimizer: Annotated[Optimizer, Option("", "any of `mxopt.nn`, your own included")],
        epsilon: Annotated[float, Exact("", "added to the divisor of `trust`")] = 1e-5,
        coefficient: Annotated[float, Exact("", "a factor of `trust`")] = 1e-3,
        use_clip: Annotated[
            bool, Exact("", "whether `trust` is divided by the learning rate and then limited to 1")
        ] = False,
        lars_filter: Annotated[
            Callable[[Parameter], Any],
            Option(
                "",
                "takes a Parameter; those for which it is false get their plain gradients, without weight decay",
            ),
        ] = lars_filter,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(f"LARS: optimizer must be one of mxopt.nn's, got {type(optimizer).__name__}")
        if not callable(lars_filter):
            raise ArgumentTypeError(f"LARS: lars_filter must be a function of a parameter, got {lars_filter!r}")
        self.opt = inner = optimizer
        self.use_clip = use_clip
        self.epsilon = epsilon
        self.coefficient = coefficient
        self._adapted = [k for k, p in enumerate(inner.parameters) if lars_filter(p)]
        self._scaled = [p.value for p in inner.parameters.clone("scaled")]  # the gradients for the other optimizer
        self.decay_flags: tuple[bool, ...] = inner.decay_flags
        self.is_group_params_ordered: bool = inner.is_group_params_ordered
        self._set_up(inner._slots, inner.groups, inner._every, inner.loss_scale, inner.is_group)
        uninterrupted(self._take_over_decay)

    def _take_over_decay(self) -> None:
        """Leaves the other optimizer without weight decay and loss scale."""
        inner = self.opt
        inner.groups = [replace(group, decay=0.0) for group in inner.groups]
        inner._every = replace(inner._every, decay=0.0)
        inner.loss_scale = 1.0
        inner.decay_flags = (False,) * len(self._slots)

    def construct(self, gradients: Gradients) -> Any:
        """Makes a step of the other optimizer; see `RuleOptimizer.construct`."""
        grads = [grad.todense() if isinstance(grad, RowSparse) else grad for grad in self._gradients(gradients)]
        positions = tuple(k for k in self._adapted if grads[k] is not None)
        slots, mine = [self._slots[k] for k in positions], [grads[k] for k in positions]
        weights, scaled = [slot.parameter.value for slot in slots], [self._scaled[k] for k in positions]
        uses, rates = [(mindspore.lars_gradient, False)], self.step_rates()
        decays = [decay / self.loss_scale for decay in self.step_decays()]
        calls = self.steps.find(positions, uses, weights, mine, scaled)
        if calls is None and positions:
            each = zip(slots, weights, mine, scaled, strict=True)
            tensors = [Tensor(slot.place, weight, grad, (state,)) for slot, weight, grad, state in each]
            calls = self.steps.make(positions, uses, tensors, scaled)
        own = 1 / self.loss_scale, math.inf, self.coefficient, self.epsilon, float(self.use_clip)
        handed = list(self.scale_grad(grads))
        run(calls or [], [(rates[k], decays[k], *own) for k in positions], range(len(positions)))
        for k in positions:
            handed[k] = self._scaled[k]
        return self.opt(handed)

    @property
    def global_step(self) -> int:
        """The number of steps taken, which the other optimizer counts."""
        return self.opt.global_step

    @global_step.setter
    def global_step(self, step: int) -> None:
        self.opt.global_step = step

    def state_dict(self) -> Plain:
        """The other optimizer's; LARS itself keeps nothing."""
        return {"optimizer": "LARS", "inner": self.opt.state_dict()}

    def load_state_dict(self, state_dict: Document) -> None:
        """See `Optimizer.load_state_dict`."""
        kind = state_dict.get("optimizer") if isinstance(state_dict, Mapping) else type(state_dict)
        if not isinstance(kind, str) or kind != "LARS" or "inner" not in state_dict:
            raise StatesError(f"the state_dict is of {kind!r:.80}, this is LARS")
        self.opt.load_state_dict(state_dict["inner"])
