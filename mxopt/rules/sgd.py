"""Gradient descent: plain, with momentum, by sign, with delay compensation, with noise."""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import COPY, clip, sign
from mxopt.rules.rule import Rule, rule, stage


@rule()
def sgd(weight, grad, lr, wd, rescale, bound):
    grad = clip(rescale * grad, bound)
    return weight - lr * (grad + wd * weight)


@rule("velocity")
def sgd_momentum(weight, grad, velocity, lr, wd, rescale, bound, momentum):
    """Polyak's momentum; the velocity holds the learning rate and points downhill, as in MXNet."""
    grad = clip(rescale * grad, bound)
    velocity = momentum * velocity - lr * (grad + wd * weight)
    return weight + velocity, velocity


@rule("velocity")
def nag(weight, grad, velocity, lr, wd, rescale, bound, momentum):
    """Nesterov's momentum as MXNet has it: the velocity's weight decay is taken at the new
    weight."""
    grad = clip(rescale * grad, bound)
    coasting = momentum * velocity
    weight = weight - coasting + (momentum + 1) * (coasting - lr * (grad + wd * weight))
    return weight, coasting - lr * (grad + wd * weight)


@rule()
def signsgd(weight, grad, lr, wd, wd_lh):
    """signSGD, https://arxiv.org/abs/1802.04434."""
    return (1 - lr * (wd + wd_lh)) * weight - sign(grad, lr)


@rule("velocity")
def signum(weight, grad, velocity, lr, wd, rescale, bound, momentum, wd_lh):
    """signSGD with momentum, https://arxiv.org/abs/1802.04434; the velocity points downhill."""
    grad = clip(rescale * grad, bound)
    velocity = momentum * velocity - (1 - momentum) * (grad + wd * weight)
    return (1 - lr * wd_lh) * weight + sign(velocity, lr), velocity


@rule("mean")
def lion(weight, grad, mean, lr, wd, rescale, bound, beta1, beta2):
    """https://arxiv.org/abs/2302.06675"""
    grad = clip(rescale * grad, bound)
    ahead = beta1 * mean + (1 - beta1) * grad
    direction = np.where(ahead > 0, 1, np.where(ahead < 0, -1, ahead))  # of NaN: NaN
    return weight - lr * (direction + wd * weight), beta2 * mean + (1 - beta2) * grad


@rule("previous", wide=COPY)
def dcasgd(weight, grad, previous, lr, wd, rescale, bound, lamda):
    """Delay-compensated asynchronous SGD, https://arxiv.org/abs/1609.08326."""
    grad = clip(rescale * grad, bound)
    step = lr * (grad + wd * weight + lamda * grad * grad * (weight - previous))
    return weight - step, weight


@rule("velocity", "previous", wide=COPY)
def dcasgd_momentum(weight, grad, velocity, previous, lr, wd, rescale, bound, lamda, momentum):
    grad = clip(rescale * grad, bound)
    step = lr * (grad + wd * weight + lamda * grad * grad * (weight - previous))
    velocity = momentum * velocity - step
    return weight + velocity, velocity, weight


@stage("weight")
def _sgld(weight, grad, noise, lr, wd, rescale, bound, deviation):
    grad = clip(rescale * grad, bound)
    return weight - lr / 2 * (grad + wd * weight) + deviation * noise


# Stochastic gradient Langevin dynamics, https://papers.nips.cc/paper/4883.
sgld: Rule = Rule("sgld", (), (_sgld,), lazy=False)


@rule("copy", lazy=False, wide=COPY)
def test(weight, grad, rescale):
    weight = weight + rescale * grad
    return weight, weight
