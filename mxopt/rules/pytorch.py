"""Rules in the form that PyTorch and MindSpore's experimental optimizers have them, where the core
has another.

Common to all: `rescale` is -1 to climb, weight decay is added to the gradient, the learning rate is
applied last, and epsilon is added to the root. Adam, AdamW and NAdam need no rule of their own: see
`experimental.optim.adam`.
"""

from __future__ import annotations

import numpy as np

from mxopt.rules.common import COPY, DIFFERENCE, larger, sign
from mxopt.rules.rule import rule


@rule("velocity")
def heavy_ball(weight, grad, velocity, lr, wd, rescale, momentum, share):
    """Polyak's momentum, https://doi.org/10.1016/0041-5553(64)90137-5; `share` is the gradient's, 1
    - dampening."""
    velocity = momentum * velocity + share * (rescale * grad + wd * weight)
    return weight - lr * velocity, velocity


@rule("velocity")
def nesterov(weight, grad, velocity, lr, wd, rescale, momentum, share):
    """Nesterov's momentum, https://proceedings.mlr.press/v28/sutskever13.html."""
    grad = rescale * grad + wd * weight
    velocity = momentum * velocity + share * grad
    return weight - lr * (grad + momentum * velocity), velocity


@rule("average", lazy=False, wide=COPY)
def asgd(weight, grad, average, lr, wd, rescale, share):
    """Averaged descent, https://doi.org/10.1137/0330046; `share` is the new weight's, 1 / (steps
    averaged)."""
    weight = weight - lr * (rescale * grad + wd * weight)
    return weight, np.where(share == 1, weight, average + share * (weight - average))


@rule("mean", "var", "largest")
def amsgrad(weight, grad, mean, var, largest, lr, wd, rescale, beta1, beta2, epsilon, decay):
    """AMSGrad, https://openreview.net/forum?id=ryQu7f-RZ; `decay` is decoupled. As in `adam`, `lr`
    and `epsilon` hold the corrections."""
    grad = rescale * grad + wd * weight
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    largest = larger(largest, var)
    return weight - lr * (mean / (np.sqrt(largest) + epsilon) + decay * weight), mean, var, largest


@rule("mean", "largest")
def adamax_epsilon(weight, grad, mean, largest, lr, wd, rescale, beta1, beta2, epsilon):
    """AdaMax, https://arxiv.org/abs/1412.6980 section 7 (`lr` holds the correction)."""
    grad = rescale * grad + wd * weight
    mean = beta1 * mean + (1 - beta1) * grad
    largest = larger(beta2 * largest, np.abs(grad) + epsilon)
    return weight - lr * mean / largest, mean, largest


@rule("mean", "var")
def radam(weight, grad, mean, var, lr, wd, rescale, beta1, beta2, epsilon, rectified):
    """RAdam, https://arxiv.org/abs/1908.03265: Adam once there is a variance to trust (`rectified`
    above 0), a running mean before. `lr` holds the corrections and the rectification."""
    grad = rescale * grad + wd * weight
    mean = beta1 * mean + (1 - beta1) * grad
    var = beta2 * var + (1 - beta2) * (grad * grad)
    return weight - lr * np.where(rectified > 0, mean / (np.sqrt(var) + epsilon), mean), mean, var


@rule("history")
def adagrad_l2(weight, grad, history, lr, wd, rescale, epsilon):
    """AdaGrad, https://jmlr.org/papers/v12/duchi11a.html."""
    grad = rescale * grad + wd * weight
    history = history + grad * grad
    return weight - lr * grad / (np.sqrt(history) + epsilon), history


@rule("mean_square", "mean_square_step")
def adadelta_l2(weight, grad, mean_square, mean_square_step, lr, wd, rescale, rho, epsilon):
    """AdaDelta, https://arxiv.org/abs/1212.5701, times a learning rate."""
    grad = rescale * grad + wd * weight
    mean_square = rho * mean_square + (1 - rho) * (grad * grad)
    step = np.sqrt(mean_square_step + epsilon) / np.sqrt(mean_square + epsilon) * grad
    mean_square_step = rho * mean_square_step + (1 - rho) * (step * step)
    return weight - lr * step, mean_square, mean_square_step


# RMSProp, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf: by the mean
# square or (centered) by the variance, with or without momentum.


@rule("mean_square")
def rmsprop_l2(weight, grad, mean_square, lr, wd, rescale, alpha, epsilon):
    grad = rescale * grad + wd * weight
    mean_square = alpha * mean_square + (1 - alpha) * (grad * grad)
    return weight - lr * grad / (np.sqrt(mean_square) + epsilon), mean_square


@rule("mean_square", "velocity")
def rmsprop_l2_momentum(weight, grad, mean_square, velocity, lr, wd, rescale, alpha, epsilon, momentum):
    grad = rescale * grad + wd * weight
    mean_square = alpha * mean_square + (1 - alpha) * (grad * grad)
    velocity = momentum * velocity + grad / (np.sqrt(mean_square) + epsilon)
    return weight - lr * velocity, mean_square, velocity


def _deviation(mean_square, mean):
    """The root of the variance, which rounding may leave a little below 0 (there PyTorch's step is
    NaN)."""
    var = mean_square - mean * mean
    return np.sqrt(np.where(var < 0, 0 * var, var))  # of minus infinity, an overflow, NaN


@rule("mean_square", "mean", wide=DIFFERENCE)
def rmsprop_l2_centered(weight, grad, mean_square, mean, lr, wd, rescale, alpha, epsilon):
    grad = rescale * grad + wd * weight
    mean_square = alpha * mean_square + (1 - alpha) * (grad * grad)
    mean = alpha * mean + (1 - alpha) * grad
    return weight - lr * grad / (_deviation(mean_square, mean) + epsilon), mean_square, mean


@rule("mean_square", "mean", "velocity", wide=DIFFERENCE)
def rmsprop_l2_centered_momentum(weight, grad, mean_square, mean, velocity, lr, wd, rescale, alpha, epsilon, momentum):
    grad = rescale * grad + wd * weight
    mean_square = alpha * mean_square + (1 - alpha) * (grad * grad)
    mean = alpha * mean + (1 - alpha) * grad
    velocity = momentum * velocity + grad / (_deviation(mean_square, mean) + epsilon)
    return weight - lr * velocity, mean_square, mean, velocity


@rule("previous", "step_size", wide="steps are multiplied again and again by numbers near 1")
def rprop(weight, grad, previous, step_size, rescale, shrink, grow, smallest, biggest):
    """Rprop, https://doi.org/10.1109/ICNN.1993.298623, without weight-backtracking: an element
    whose gradient has changed sign waits one step."""
    grad = rescale * grad
    agreement = grad * previous
    step_size = step_size * np.where(agreement > 0, grow, np.where(agreement < 0, shrink, 1))
    step_size = np.where(step_size < smallest, smallest, np.where(step_size > biggest, biggest, step_size))
    grad = np.where(agreement < 0, 0, grad)
    return weight - sign(grad, step_size), grad, step_size
