"""Gradient descent with momentum, averaged, and by sign: SGD, Momentum, ASGD, Rprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mxopt.errors import ArgumentError, ArgumentTypeError, StatesError
from mxopt.nn.checks import check_bools, check_floats, check_numbers
from mxopt.nn.ruled import Kind, RuleOptimizer
from mxopt.rules import pytorch, sgd


class SGD(RuleOptimizer):
    """Stochastic gradient descent: `v = momentum * v + (1 - dampening) * grad`, then `param -= lr * v`.

    The first step takes `v = grad`. With `nesterov` it is `param -= lr * (grad + momentum * v)`.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`.
    momentum, dampening : float or int
        0 or more. Without momentum there is no dampening, as in MindSpore.
    nesterov : bool
        Needs momentum and no dampening.

    Raises
    ------
    TypeError, ValueError, KeyError, RuntimeError
        See `Optimizer`; an option is of another type, or out of range.
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: Any = 0.0,
        nesterov: bool = False,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        if self.dynamic_weight_decay:
            raise ArgumentTypeError("SGD: weight_decay must be a number, in groups too, got a schedule")
        check_numbers("SGD", "[0, inf)", momentum=momentum, dampening=dampening)
        check_bools("SGD", nesterov=nesterov)
        if nesterov and (momentum == 0 or dampening != 0):
            raise ArgumentError(f"SGD: nesterov needs momentum ({momentum}) above 0 and dampening ({dampening}) of 0")
        self.momentum, self.dampening, self.nesterov = float(momentum), float(dampening), nesterov
        if not momentum:
            self.rule = sgd.sgd
            self.keep()
        else:
            self.rule = pytorch.nesterov if nesterov else pytorch.heavy_ball
            self.keep(accum=0.0)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        if not self.momentum:
            return (lr,)
        return lr, self.momentum, 1.0 if t == 1 else 1 - self.dampening


class Momentum(RuleOptimizer):
    """`v = momentum * v + grad`, then `param -= lr * v`; with `use_nesterov` `param -= lr * (grad + momentum * v)`.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`.
    momentum : float
        0 or more. An int is a TypeError.
    use_nesterov : bool

    Raises
    ------
    TypeError, ValueError, KeyError, RuntimeError
        See `Optimizer`; an option is of another type, or out of range.
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any,
        momentum: float,
        weight_decay: Any = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        check_floats("Momentum", "[0, inf)", momentum=momentum)
        check_bools("Momentum", use_nesterov=use_nesterov)
        self.momentum, self.use_nesterov = momentum, use_nesterov
        self.rule = pytorch.nesterov if use_nesterov else pytorch.heavy_ball
        self.keep(moments=0.0)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, self.momentum, 1.0


class ASGD(RuleOptimizer):
    """Averaged descent: `param -= eta * (grad + lambd * param)`; `ax` is the parameter's average after step `t0`.

    `eta` is the learning rate at first, and after step t `lr / (1 + lambd * lr * t) ** alpha`: a changed rate acts one
    step later, as in MindSpore and PyTorch. https://doi.org/10.1137/0330046

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`.
    lambd, alpha, t0 : float
        An int is a TypeError.

    Raises
    ------
    TypeError, ValueError, KeyError, RuntimeError
        See `Optimizer`; an option is of another type.
    """

    rule = pytorch.asgd
    carried = "eta"
    first_carry = -1.0

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.1,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay)
        check_floats("ASGD", "(-inf, inf)", lambd=lambd, alpha=alpha, t0=t0)
        self.lambd, self.alpha, self.t0 = lambd, alpha, t0
        self.keep(ax=0.0)

    @property
    def eta(self) -> list[float]:
        """The rate of the step to come, for each parameter."""
        pairs = zip(self._slots, self._rates(), strict=True)
        return [rate if slot.own < 0 else slot.own for slot, rate in pairs]

    def own(self, weight: Any) -> float:
        """-1 before the first step, then `eta`."""
        return self.first_carry

    def next_own(self, kind: Kind) -> float:
        """`eta` of the next step."""
        return float(kind.lr / (1 + self.lambd * kind.lr * kind.t) ** self.alpha)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr if own < 0 else own, 1 / max(1.0, t - 1 - self.t0)

    def _row(self, kind: Kind, ready: bool) -> tuple[float, ...]:
        rate, wd, *rest = super()._row(kind, ready)
        return (rate, wd + self.lambd, *rest)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "eta": self.eta}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        eta = state_dict.get("eta", ())
        if len(eta) != len(self._slots) or not all(isinstance(x, float) for x in eta):
            raise StatesError(f"ASGD: eta must hold a float for each of {len(self._slots)} parameters, got {eta!r:.80}")
        super().load_state_dict(state_dict)
        for slot, own in zip(self._slots, eta, strict=True):
            slot.own = own if self.global_step else self.first_carry
        self._seen = None


class Rprop(RuleOptimizer):
    """Steps by the sign of the gradient, whose sizes grow while it stays and shrink when it turns.

    https://doi.org/10.1109/ICNN.1993.298623. The sizes start at the learning rate, which has no effect afterwards.

    Parameters
    ----------
    params, learning_rate, weight_decay
        See `Optimizer`.
    etas : (float, float)
        What a size is multiplied by when the sign turns (between 0 and 1), and when it stays (above 1).
    step_sizes : (float, float)
        The least and the largest size.

    Raises
    ------
    TypeError, ValueError, KeyError, RuntimeError
        See `Optimizer`; an option is of another type, or out of range.
    """

    rule = pytorch.rprop
    decay = "unknown to the rule"

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.1,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay)
        for name, pair in {"etas": etas, "step_sizes": step_sizes}.items():
            if not isinstance(pair, tuple):
                raise ArgumentTypeError(f"Rprop: {name} must be a tuple, got {pair!r}")
            if len(pair) != 2:
                raise ArgumentError(f"Rprop: {name} must hold two floats, got {pair!r}")
            check_floats("Rprop", "(-inf, inf)", **{f"{name}[{k}]": value for k, value in enumerate(pair)})
        check_floats("Rprop", "(0, 1)", etaminus=etas[0])
        check_floats("Rprop", "(1, inf)", etaplus=etas[1])
        if step_sizes[0] > step_sizes[1]:
            raise ArgumentError(f"Rprop: step_sizes must ascend, got {step_sizes!r}")
        self.etas, self.step_sizes = etas, step_sizes
        self.keep(prev=0.0, step_size=float)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return (lr, *self.etas, *self.step_sizes)
