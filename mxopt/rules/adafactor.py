"""Adafactor, https://arxiv.org/abs/1804.04235: a matrix' second moment as a row and a column."""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import clip, larger
from mxopt.rules.rule import Reduction, Rule, derives, layerwise, stage

# The step, from the gradient over the root of its second moment on: that is `grad` here. `size` is
# the number of elements, which makes root mean squares of norms; `smallest` the least that the
# weight's counts for, NaN where the rate isn't relative to it.


@stage(norms=2)
def _step_norms(weight, grad):
    return weight, grad


@derives("weight_rate", "rate")
def _rates(weight, grad, lr, size, smallest, threshold):
    root = np.sqrt(size)
    lr = np.where(smallest == smallest, lr * larger(weight / root, smallest), lr)
    excess = np.where(threshold != 0, grad / root / threshold, np.inf)
    return lr, lr / larger(excess, 1.0)


@stage("weight")
def _step(weight, grad, weight_rate, rate, wd):
    return weight - wd * weight_rate * weight - rate * grad


@stage("weight", "mean")
def _step_mean(weight, grad, mean, weight_rate, rate, wd, beta1):
    mean = beta1 * mean + (1 - beta1) * (rate * grad)
    return weight - wd * weight_rate * weight - mean, mean


FACTORED = "second moments take next to no memory: one number for each row and column"
directed: Rule = layerwise("directed", (), _step_norms, _rates, _step, wide=FACTORED)
directed_mean: Rule = layerwise("directed_mean", ("mean",), _step_norms, _rates, _step_mean, wide=FACTORED)


def _last(axes):
    return (-1,) if axes > 1 else ()


def _before(axes):
    return (-2,) if axes > 1 else tuple(range(axes))


def _both(axes):
    return (-2, -1) if axes > 1 else tuple(range(axes))


def _value(grad, rescale, bound):
    return clip(rescale * grad, bound)


# Running means of the squares of a matrix' rows, of its columns, and of all. A vector's row keeps
# every element.


def _row(row, mean_square, kept, floor):
    return kept * row + (1 - kept) * (mean_square + floor)


def _column(column, mean_square, kept, floor):
    return kept * column + (1 - kept) * (mean_square + floor)


def _whole(whole, mean_square, kept, floor):
    return kept * whole + (1 - kept) * (mean_square + floor)


MOMENT = (
    Reduction("row", _last, _value, _row),
    Reduction("column", _before, _value, _column),
    Reduction("whole", _both, _value, _whole),
)


def _direction(grad, row, column, whole, rescale, bound):
    return clip(rescale * grad, bound) / np.sqrt(row * (column / whole))


def _reducing(name: str, rule: Rule) -> Rule:
    states = (*(reduction.state for reduction in MOMENT), *rule.states)
    parts = rule.stages, rule.derivations
    return Rule(name, states, *parts, lazy=False, reductions=MOMENT, direction=_direction, wide=FACTORED)


adafactor: Rule = _reducing("adafactor", directed)
adafactor_mean: Rule = _reducing("adafactor_mean", directed_mean)
