"""Adam and its relatives: running means of the gradient and of its square.

Bias corrections are powers of scalars: the optimizers take them on the host, in double. Of `1 -
beta` the last digits depend on the precision: it is taken here, in the arithmetic's, where MXNet
has a kernel, and on the host where Python computes it there (`rest1`).
"""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import RECOMPUTED, clip, larger
from mxopt.rules.rule import rule


@rule("mean", "var")
def adam(weight, grad, mean, var, lr, wd, rescale, bound, beta1, beta2, epsilon):
    """Adam, https://arxiv.org/abs/1412.6980, in the form at the end of its section 2 (`lr` holds
    the corrections)."""
    grad = clip(rescale * grad + wd * weight, bound)
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    return weight - lr * mean / (np.sqrt(var) + epsilon), mean, var


@rule("mean", "var")
def adamw(weight, grad, mean, var, lr, wd, rescale, bound, beta1, beta2, epsilon):
    """Adam with decoupled weight decay, https://arxiv.org/abs/1711.05101."""
    grad = clip(rescale * grad, bound)
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    return weight - lr * (mean / (np.sqrt(var) + epsilon) + wd * weight), mean, var


@rule("mean", "var")
def adabelief(weight, grad, mean, var, lr, wd, rescale, bound, beta1, beta2, epsilon):
    """AdaBelief, https://arxiv.org/abs/2010.07468: the variance around the running mean."""
    grad = clip(rescale * grad + wd * weight, bound)
    mean = beta1 * mean + (1 - beta1) * grad
    surprise = grad - mean
    var = beta2 * var + (1 - beta2) * (surprise * surprise) + epsilon
    return weight - lr * mean / (np.sqrt(var) + epsilon), mean, var


@rule("mean", "largest")
def adamax(weight, grad, mean, largest, lr, wd, rescale, bound, beta1, rest1, beta2, epsilon):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7 (`lr` holds the correction)."""
    grad = clip(rescale * grad + wd * weight, bound)
    mean = beta1 * mean + rest1 * grad
    largest = larger(beta2 * largest, np.abs(grad))
    return weight - lr * mean / (largest + epsilon), mean, largest


@rule("mean", "var")
def nadam(
    weight, grad, mean, var, lr, wd, rescale, bound, beta1, rest1, beta2, rest2, epsilon, mean_share, grad_share, bias2
):
    """Nadam, https://cs229.stanford.edu/proj2015/054_report.pdf.

    `mean_share` and `grad_share` are the momentum schedule's, `bias2` is 1 - beta2^t.
    """
    grad = clip(rescale * grad + wd * weight, bound)
    mean = beta1 * mean + rest1 * grad
    var = beta2 * var + rest2 * (grad * grad)
    ahead = mean_share * mean + grad_share * grad
    return weight - lr * ahead / (np.sqrt(var / bias2) + epsilon), mean, var


@rule("d", "v", "z", wide=RECOMPUTED)
def ftml(weight, grad, d, v, z, lr, wd, rescale, bound, beta1, beta2, epsilon, correction1, correction2):
    """Follow the moving leader, https://proceedings.mlr.press/v70/zheng17a.html.

    `correction1` is 1 - beta1^t, `correction2` 1 - beta2^t.
    """
    grad = clip(rescale * grad + wd * weight, bound)
    v_new = beta2 * v + (1 - beta2) * (grad * grad)
    d_new = correction1 / lr * (np.sqrt(v_new / correction2) + epsilon)
    z_new = beta1 * z + (1 - beta1) * grad - (d_new - beta1 * d) * weight
    frozen = lr == 0  # the formula divides by the rate
    return (
        np.where(frozen, weight, -z_new / d_new),
        np.where(frozen, d, d_new),
        np.where(frozen, v, v_new),
        np.where(frozen, z, z_new),
    )
