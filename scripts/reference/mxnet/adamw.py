"""AdamW in MXNet 1.9.1: two contrib operators and no class, so here is as much of a class as a
recording needs."""

import math

from real_mxnet import mx


class AdamWOperators:
    """AdamW as the operators alone do it, with the few methods of an optimizer that `run` needs."""

    def __init__(
        self,
        scaled: bool,
        learning_rate,
        beta1,
        beta2,
        epsilon,
        correct_bias=True,
        multi_precision=False,
        **more,
    ):
        self.options = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "rescale_grad": 1.0, **more}
        self.learning_rate, self.correct_bias, self.masters = learning_rate, correct_bias, multi_precision
        self.scaled = scaled
        self.calls: list[dict] = []

    def create_state_multi_precision(self, index, weight):
        master = weight.astype("float32") if self.masters else weight
        moments = (mx.nd.zeros_like(master), mx.nd.zeros_like(master))
        return (master, moments) if self.masters else moments

    def update_multi_precision(self, index, weight, grad, state):
        t, options = len(self.calls) + 1, self.options
        corrected = math.sqrt(1 - options["beta2"] ** t) / (1 - options["beta1"] ** t) if self.correct_bias else 1.0
        step = {"lr": self.learning_rate * corrected, "eta": 1.0}
        if self.scaled:
            step = {"lr": corrected, "eta": self.learning_rate}
        self.calls.append({**step, **options})
        if self.masters:
            mx.nd.contrib.mp_adamw_update(weight, grad, *state[1], state[0], out=weight, **self.calls[-1])
        else:
            mx.nd.contrib.adamw_update(weight, grad, *state, out=weight, **self.calls[-1])
