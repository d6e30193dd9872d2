"""Rates adapted to each element by the size of its gradients: AdaGrad, AdaDelta, RMSProp, FTRL."""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import DIFFERENCE, RECOMPUTED, clip, sign
from mxopt.rules.rule import Reduction, Rule, Stage, rule


@rule("history")
def adagrad(weight, grad, history, lr, wd, rescale, bound, epsilon):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html, with decoupled weight decay as in
    MXNet."""
    grad = clip(rescale * grad, bound)
    history = history + grad * grad
    return weight - lr * (grad / np.sqrt(history + epsilon) + wd * weight), history


@rule("mean_square", "mean_square_step")
def adadelta(weight, grad, mean_square, mean_square_step, wd, rescale, bound, rho, one_minus_rho, epsilon):
    """AdaDelta, https://arxiv.org/abs/1212.5701; weight decay is not scaled by any rate, as in
    MXNet."""
    grad = clip(rescale * grad, bound)
    mean_square = rho * mean_square + one_minus_rho * (grad * grad)
    step = np.sqrt((mean_square_step + epsilon) / (mean_square + epsilon)) * grad
    mean_square_step = rho * mean_square_step + one_minus_rho * (step * step)
    return weight - (step + wd * weight), mean_square, mean_square_step


@rule("mean_square")
def rmsprop(weight, grad, mean_square, lr, wd, rescale, bound, gamma1, epsilon, weight_bound):
    """RMSProp of Tieleman and Hinton,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf."""
    grad = clip(rescale * grad + wd * weight, bound)
    mean_square = gamma1 * mean_square + (1 - gamma1) * (grad * grad)
    return clip(weight - lr * grad / np.sqrt(mean_square + epsilon), weight_bound), mean_square


@rule("mean_square", "mean", "velocity", wide=DIFFERENCE)
def rmsprop_centered(
    weight, grad, mean_square, mean, velocity, lr, wd, rescale, bound, gamma1, gamma2, epsilon, weight_bound
):
    """RMSProp of Graves, https://arxiv.org/abs/1308.0850 equations 38 to 45: by the variance, with
    momentum."""
    grad = clip(rescale * grad + wd * weight, bound)
    mean_square = gamma1 * mean_square + (1 - gamma1) * (grad * grad)
    mean = gamma1 * mean + (1 - gamma1) * grad
    velocity = gamma2 * velocity - lr * grad / np.sqrt(mean_square - mean * mean + epsilon)
    return clip(weight + velocity, weight_bound), mean_square, mean, velocity


@rule("z", "n", lazy_storage=True, wide=RECOMPUTED)
def ftrl(weight, grad, z, n, lr, wd, rescale, bound, lamda1, beta):
    """FTRL-Proximal, https://research.google/pubs/ad-click-prediction-a-view-from-the-trenches/."""
    grad = clip(rescale * grad, bound)
    root = np.sqrt(n + grad * grad)
    z_new = z + grad - (root - np.sqrt(n)) / lr * weight
    step = (sign(z_new, lamda1) - z_new) / ((beta + root) / lr + wd)
    frozen = lr == 0  # the formula divides by the rate
    return (
        np.where(frozen, weight, np.where(np.abs(z_new) <= lamda1, 0, step)),
        np.where(frozen, z, z_new),
        np.where(frozen, n, n + grad * grad),
    )


def _group_adagrad(weight, grad, history, lr, rescale, bound, epsilon):
    """AdaGrad with one history for each row, the mean of its squares."""
    grad = clip(rescale * grad, bound)
    return weight - lr * grad / np.sqrt(history + epsilon)


group_adagrad: Rule = Rule(
    "group_adagrad",
    ("history",),
    (Stage(_group_adagrad, ("weight",)),),
    reduction=Reduction(
        value=lambda grad, rescale, bound: clip(rescale * grad, bound),
        row=lambda history, mean_square: history + mean_square,
    ),
    wide="they take next to no memory: one number for each row",
)
