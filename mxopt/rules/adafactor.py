"""Adafactor, https://arxiv.org/abs/1804.04235: a matrix' second moment as a row and a column; in
the paper's form, and in PyTorch's."""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import clip, larger
from mxopt.rules.rule import Reduction, Rule, derives, layerwise, stage


def _value(grad, rescale, bound):
    return clip(rescale * grad, bound)


def _row(row, mean_square, kept, floor):
    return kept * row + (1 - kept) * (mean_square + floor)


def _column(column, mean_square, kept, floor):
    return kept * column + (1 - kept) * (mean_square + floor)


# One over the root of the second moment, `row * column / mean_row`, in two factors.


def _row_factor(row):
    return 1 / np.sqrt(row)


def _column_factor(column, mean_row):
    return 1 / np.sqrt(column / mean_row)


MOMENT = Reduction(_value, _row, _column, _row_factor, _column_factor)


def _direction(grad, row_factor, column_factor, rescale, bound):
    return clip(rescale * grad, bound) * row_factor * column_factor


@stage(norms=2)
def _norms(weight, grad, row_factor, column_factor, rescale, bound):
    return weight, _direction(grad, row_factor, column_factor, rescale, bound)


# `size` makes root mean squares of norms; `smallest` is the least that the weight's counts for, NaN
# where the rate isn't relative to it.


@derives("weight_rate", "rate")
def _rates(weight, step, lr, size, smallest, threshold):
    root = np.sqrt(size)
    lr = np.where(smallest == smallest, lr * larger(weight / root, smallest), lr)
    excess = np.where(threshold != 0, step / root / threshold, np.inf)
    return lr, lr / larger(excess, 1.0)


@stage("weight")
def _step(weight, grad, row_factor, column_factor, weight_rate, rate, wd, rescale, bound):
    return weight - wd * weight_rate * weight - rate * _direction(grad, row_factor, column_factor, rescale, bound)


@stage("weight", "mean")
def _step_mean(weight, grad, mean, row_factor, column_factor, weight_rate, rate, wd, rescale, bound, beta1):
    mean = beta1 * mean + (1 - beta1) * (rate * _direction(grad, row_factor, column_factor, rescale, bound))
    return weight - wd * weight_rate * weight - mean, mean


FACTORED = "second moments take next to no memory: one number for each row and column"
adafactor: Rule = layerwise("adafactor", ("row", "column"), _norms, _rates, _step, reduction=MOMENT, wide=FACTORED)
adafactor_mean: Rule = layerwise(
    "adafactor_mean", ("row", "column", "mean"), _norms, _rates, _step_mean, reduction=MOMENT, wide=FACTORED
)


# PyTorch's form adds nothing to the squares: it limits from below what it divides by, the mean of
# the rows by `floor` and the second moment by `least`. `share` is the newest gradient's part of the
# means; `wd` holds the rate.


def _row_limited(row, mean_square, share):
    return row + share * (mean_square - row)


def _column_limited(column, mean_square, share):
    return column + share * (mean_square - column)


def _row_itself(row):
    return row


def _column_over_row(column, mean_row, floor):
    return column / larger(mean_row, floor)


MOMENT_LIMITED = Reduction(_value, _row_limited, _column_limited, _row_itself, _column_over_row)


def _direction_limited(grad, row_factor, column_factor, rescale, bound, least):
    return clip(rescale * grad, bound) / np.sqrt(larger(row_factor * column_factor, least))


@stage(norms=2)
def _norms_limited(weight, grad, row_factor, column_factor, rescale, bound, least):
    return weight, _direction_limited(grad, row_factor, column_factor, rescale, bound, least)


@derives("rate")
def _rate_limited(weight, step, lr, size, smallest, threshold):
    root = np.sqrt(size)
    return lr * larger(weight / root, smallest) / larger(step / root / threshold, 1.0)


@stage("weight")
def _step_limited(weight, grad, row_factor, column_factor, rate, wd, rescale, bound, least):
    return weight - wd * weight - rate * _direction_limited(grad, row_factor, column_factor, rescale, bound, least)


adafactor_limited: Rule = layerwise(
    "adafactor_limited",
    ("row", "column"),
    _norms_limited,
    _rate_limited,
    _step_limited,
    reduction=MOMENT_LIMITED,
    wide=FACTORED,
)
