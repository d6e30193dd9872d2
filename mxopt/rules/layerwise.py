"""Rates adapted to each tensor by the norms of its weight and of its update: LARS, LBSGD, LAMB,
LANS."""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import clip, within
from mxopt.rules.rule import Rule, derives, layerwise, stage


@stage(norms=2)
def weight_and_grad(weight, grad, rescale):
    return weight, rescale * grad


@stage("weight")
def _sgd(weight, grad, rate, wd, rescale, bound):
    grad = clip(rescale * grad, bound)
    return weight - rate * (grad + wd * weight)


@stage("weight", "velocity")
def _momentum(weight, grad, velocity, rate, wd, rescale, bound, momentum):
    grad = clip(rescale * grad, bound)
    velocity = momentum * velocity - rate * (grad + wd * weight)
    return weight + velocity, velocity


@derives("rate")
def _lars_rate(weight, grad, lr, wd, eta, epsilon):
    """LARS, https://arxiv.org/abs/1708.03888; an `eta` of NaN leaves the rate alone (biases,
    norms)."""
    adapted = np.logical_and(np.logical_and(weight > 0, grad > 0), eta == eta)
    return np.where(adapted, lr * (eta * weight / (grad + wd * weight + epsilon)), lr)


lars: Rule = layerwise("lars", (), weight_and_grad, _lars_rate, _sgd, lazy=True)
lars_momentum: Rule = layerwise("lars_momentum", ("velocity",), weight_and_grad, _lars_rate, _momentum, lazy=True)


@stage(norms=2)
def _weight_and_raw_grad(weight, grad):
    return weight, grad


@derives("rate")
def _lbsgd_rate(weight, grad, lr, wd):
    """MXNet's own ratio, of squared norms, kept within [0.01, 100]."""
    ratio = np.sqrt(weight * weight / (grad * grad + wd * (weight * weight) + 1e-18))
    return lr * within(ratio, 0.01, 100.0)


lbsgd: Rule = layerwise("lbsgd", (), _weight_and_raw_grad, _lbsgd_rate, _sgd, lazy=True)
lbsgd_momentum: Rule = layerwise(
    "lbsgd_momentum", ("velocity",), _weight_and_raw_grad, _lbsgd_rate, _momentum, lazy=True
)


def _direction(mean, var, weight, wd, unbias1, unbias2, epsilon):
    return unbias1 * mean / (np.sqrt(unbias2 * var) + epsilon) + wd * weight


@stage("mean", "var", norms=2)
def _lamb_moments(weight, grad, mean, var, wd, rescale, bound, beta1, beta2, epsilon, unbias1, unbias2):
    grad = clip(rescale * grad, bound)
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    return mean, var, weight, _direction(mean, var, weight, wd, unbias1, unbias2, epsilon)


@derives("rate")
def _lamb_rate(weight, update, lr, lower, upper):
    return lr * _trust(weight, update, lower, upper)


def _trust(weight, update, lower, upper):
    """The trust ratio of LAMB and LANS; NaN passes through."""
    weight = within(weight, lower, upper)
    return np.where(np.logical_or(weight == 0, update == 0), 1.0, weight / update)


@stage("weight")
def _lamb_step(weight, mean, var, rate, wd, epsilon, unbias1, unbias2):
    return weight - rate * _direction(mean, var, weight, wd, unbias1, unbias2, epsilon)


# LAMB, https://arxiv.org/abs/1904.00962; `unbias` is 1 / (1 - beta^t), or 1 without bias
# correction. (Factors, because each division takes a processor as long as a store takes the
# memory.)
lamb: Rule = layerwise("lamb", ("mean", "var"), _lamb_moments, _lamb_rate, _lamb_step)


@stage(norms=1)
def _grad(grad, rescale):
    return rescale * grad


@derives("unit")
def _unit(grad, rescale):
    return np.where(grad != 0, rescale / grad, 0.0)


@stage("mean", "var", norms=3)
def _lans_moments(weight, grad, mean, var, unit, wd, bound, beta1, beta2, epsilon, unbias1, unbias2):
    grad = clip(unit * grad, bound)
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    return (
        mean, var, weight,
        _direction(mean, var, weight, wd, unbias1, unbias2, epsilon),
        _direction(grad, var, weight, wd, 1, unbias2, epsilon),
    )  # fmt: skip


@derives("mean_rate", "grad_rate")
def _lans_rates(weight, mean, grad, lr, beta1, lower, upper):
    by_mean, by_grad = _trust(weight, mean, lower, upper), _trust(weight, grad, lower, upper)
    return lr * beta1 * by_mean, lr * (1 - beta1) * by_grad


@stage("weight")
def _lans_step(weight, grad, mean, var, mean_rate, grad_rate, unit, wd, bound, epsilon, unbias1, unbias2):
    grad = clip(unit * grad, bound)
    by_mean = _direction(mean, var, weight, wd, unbias1, unbias2, epsilon)
    by_grad = _direction(grad, var, weight, wd, 1, unbias2, epsilon)
    return weight - mean_rate * by_mean - grad_rate * by_grad


# LANS, https://arxiv.org/abs/2006.13484.
lans: Rule = layerwise("lans", ("mean", "var"), _grad, _unit, _lans_moments, _lans_rates, _lans_step)
