"""A custom optimizer on `mxopt.nn.Optimizer`, twice: written with NumPy, and as a rule that is
compiled.

Both are Lion (https://arxiv.org/abs/2302.06675), with weight decay added to the gradient: steps of
one size by the sign of a mix of gradient and momentum. They train a logistic regression on points
in two clouds, with groups and a schedule, and end up with the same weights.

    python docs/examples/custom_optimizer.py
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mxopt import nn
from mxopt.rules.common import sign
from mxopt.rules.rule import rule


class Lion(nn.Optimizer):
    """Lion, step by step on the arrays."""

    def __init__(
        self, params: Any, learning_rate: Any, beta1: float = 0.9, beta2: float = 0.99, weight_decay: Any = 0.0
    ) -> None:
        super().__init__(learning_rate, params, weight_decay)
        self.beta1, self.beta2 = beta1, beta2
        self.moments = self.parameters.clone(prefix="moments", init="zeros")

    def construct(self, gradients: tuple[np.ndarray, ...]) -> bool:
        gradients = self.decay_weight(gradients)
        gradients = self.gradients_centralization(gradients)
        gradients = self.scale_grad(gradients)
        rates = self.get_lr()
        if not isinstance(rates, tuple):
            rates = (rates,) * len(gradients)
        for parameter, moment, gradient, lr in zip(self.parameters, self.moments, gradients, rates, strict=True):
            weight, m = parameter.value, moment.value
            weight -= lr * np.sign(self.beta1 * m + (1 - self.beta1) * gradient)
            m *= self.beta2
            m += (1 - self.beta2) * gradient
        return True


@rule("moment")
def lion(
    weight: Any, grad: Any, moment: Any, lr: Any, wd: Any, rescale: Any, beta1: Any, beta2: Any
) -> tuple[Any, Any]:
    """What happens to one element. The names say what each argument is: arrays first, then
    numbers."""
    grad = rescale * grad + wd * weight
    weight = weight - sign(beta1 * moment + (1 - beta1) * grad, lr)
    return weight, beta2 * moment + (1 - beta2) * grad


class CompiledLion(nn.RuleOptimizer):
    """The same as one compiled pass over all parameters, which also takes row-sparse gradients and
    float16."""

    rule = lion

    def __init__(
        self, params: Any, learning_rate: Any, beta1: float = 0.9, beta2: float = 0.99, weight_decay: Any = 0.0
    ) -> None:
        super().__init__(learning_rate, params, weight_decay)
        self.betas = beta1, beta2
        self.keep(moments=0.0)

    def scalars(self, lr: float, t: int, own: Any) -> tuple[float, ...]:
        return lr, *self.betas


def train(make: Callable[..., nn.Optimizer], steps: int = 60) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, bias and accuracy after training."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    points = rng.standard_normal((500, 4)) + 1.5 * labels[:, None]
    weight, bias = np.zeros(4), np.zeros(1)
    groups = [
        {"params": [weight], "lr": nn.CosineDecayLR(min_lr=0.001, max_lr=0.1, decay_steps=steps)},
        {"params": [bias], "weight_decay": 0.0},
    ]
    optimizer = make(groups, learning_rate=0.05, weight_decay=0.01)
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(points @ weight + bias))) - labels
        optimizer((points.T @ error / len(points), np.array([error.mean()])))
    return weight, bias, float(((points @ weight + bias > 0) == labels).mean())


if __name__ == "__main__":
    for optimizer_class in (Lion, CompiledLion):
        weight, bias, accuracy = train(optimizer_class)
        print(f"{optimizer_class.__name__}: weights {weight.round(3)}, bias {bias.round(3)}, accuracy {accuracy:.1%}")
