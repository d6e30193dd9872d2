"""Averages of weights over the steps of a training."""

from __future__ import annotations

from mxopt.rules.rule import rule


@rule(lazy=False)
def moving_average(weight, grad, share):
    """Moves an average, the rule's weight, by `share` of the way to a weight, the rule's gradient.

    An average that equals the weight stays. https://epubs.siam.org/doi/10.1137/0330046
    """
    average, weight = weight, grad
    return average + share * (weight - average)
