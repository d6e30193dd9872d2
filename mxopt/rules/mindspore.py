"""Rules in the form that `mindspore.nn` documents, where neither the core nor `pytorch.py` has it.

Common to all but `lars_gradient`: weight decay is added to the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mxopt.rules.common import RECOMPUTED, larger, sign
from mxopt.rules.layerwise import weight_and_grad
from mxopt.rules.rule import Rule, derives, layerwise, rule, stage


@rule("mean", "largest")
def adamax_apart(weight, grad, mean, largest, lr, wd, rescale, beta1, beta2, epsilon):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7 (`lr` holds the correction); epsilon apart
    from the maximum."""
    grad = rescale * grad + wd * weight
    mean = beta1 * mean + (1 - beta1) * grad
    largest = larger(beta2 * largest, np.abs(grad))
    return weight - lr * mean / (largest + epsilon), mean, largest


@stage("weight")
def _fixed(weight, grad, history, lr, wd, rescale, epsilon):
    return weight - lr * (rescale * grad + wd * weight) / (np.sqrt(history) + epsilon)


# AdaGrad whose history stays as it is.
adagrad_fixed: Rule = Rule("adagrad_fixed", ("history",), (_fixed,))


@rule("history")
def proximal_adagrad(weight, grad, history, lr, wd, rescale, l1, l2, epsilon):
    """AdaGrad by forward-backward splitting, https://papers.nips.cc/paper/3793."""
    grad = rescale * grad + wd * weight
    history = history + grad * grad
    rate = lr / (np.sqrt(history) + epsilon)
    forward = weight - rate * grad
    left = np.abs(forward) - rate * l1
    return sign(forward, np.where(left <= 0, 0, left)) / (1 + rate * l2), history


@rule("mean_square", "velocity")
def rmsprop_momentum(weight, grad, mean_square, velocity, lr, wd, rescale, gamma1, gamma2, epsilon):
    """RMSProp, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, with
    momentum."""
    grad = rescale * grad + wd * weight
    mean_square = gamma1 * mean_square + (1 - gamma1) * (grad * grad)
    velocity = gamma2 * velocity + lr * grad / np.sqrt(mean_square + epsilon)
    return weight - velocity, mean_square, velocity


def power(x, exponent):
    """`x` (0 or more) to an exponent within [0, 8), by products of its repeated squares and roots
    alone: operations that every engine does to the same bits."""
    result: Any = 1
    factors = [(x * x) * (x * x), x * x, x]
    for _ in range(40):  # 2**-40: more than float32 can hold, close to what float64 can
        factors.append(np.sqrt(factors[-1]))
    for k, factor in enumerate(factors):
        share = 2.0 ** (2 - k)
        taken = exponent >= share
        result = np.where(taken, result * factor, result)
        exponent = np.where(taken, exponent - share, exponent)
    return result


@rule("z", "n", wide=RECOMPUTED)
def ftrl_power(weight, grad, z, n, lr, wd, rescale, lamda1, exponent):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/,
    whose rates fall with n to `exponent` instead of its root; `wd` is twice the L2 strength, as in
    `ftrl`."""
    grad = rescale * grad
    n_new = n + grad * grad
    grown = power(n_new, exponent)
    z = z + grad - (grown - power(n, exponent)) / lr * weight
    return np.where(np.abs(z) <= lamda1, 0, (sign(z, lamda1) - z) / (grown / lr + wd)), z, n_new


@derives("trust")
def _lars_trust(weight, grad, lr, wd, coefficient, epsilon, clipped):
    """LARS, https://arxiv.org/abs/1708.03888; 1 where a norm is 0, so that weights can leave 0."""
    trust = coefficient * weight / (grad + wd * weight + epsilon)
    limited = np.where(lr > 0, np.where(trust / lr > 1.0, 1.0, trust / lr), 1.0)
    trust = np.where(clipped != 0, limited, trust)
    return np.where(np.logical_and(weight > 0, grad > 0), trust, 1.0)


@stage("scaled")
def _lars_scaled(weight, grad, trust, wd, rescale):
    return trust * (rescale * grad + wd * weight)


# The gradient as LARS hands it on to another optimizer, in the state `scaled`; the weight stays.
lars_gradient: Rule = layerwise(
    "lars_gradient", ("scaled",), weight_and_grad, _lars_trust, _lars_scaled,
    wide="they are gradients, which another optimizer takes",
)  # fmt: skip
