"""What running a case on MindSpore takes: parameters, reading states back, recording,
tolerances."""

import mindspore as ms
import numpy as np
from format import flatten

#: Attributes of an optimizer that are lists of parameters, but no state.
NOT_STATE = {"parameters", "_parameters", "params", "lrs", "learning_rate", "group_params", "group_lr"}


class Recorder:
    """The parameters and states of every step."""

    def __init__(self):
        self.steps = []

    def add(self, weights, states):
        weights = [np.array(weight) for weight in weights]
        self.steps.append((weights, {name: [np.array(item) for item in state] for name, state in states.items()}))

    def weights(self):
        return np.stack([flatten(weights) for weights, _ in self.steps])

    def shapes(self):
        """The shapes of each state's arrays."""
        return {name: [list(item.shape) for item in state] for name, state in self.steps[-1][1].items()}

    def arrays(self, head, states=True):
        arrays = {head: self.weights()}
        for name, last in self.steps[-1][1].items() if states else ():
            blank = [np.zeros_like(item) for item in last]
            arrays[f"{head}/{name}"] = np.stack([flatten(kept.get(name, blank)) for _, kept in self.steps])
        return arrays


def ms_parameters(problem):
    return [
        ms.Parameter(ms.Tensor(weight), name=name)
        for name, weight in zip(problem.names, problem.weights(), strict=True)
    ]


def ms_states(optimizer, order):
    """Every list of arrays that the optimizer keeps, brought into the order of the problem."""
    states = {}
    for name in dir(optimizer):
        if name in NOT_STATE or name.startswith("__"):
            continue
        try:
            value = getattr(optimizer, name)
        except (AttributeError, NotImplementedError):
            continue
        if not isinstance(value, (list, tuple)) or len(value) != len(order):
            continue
        if all(isinstance(item, ms.Parameter) for item in value):
            states[name] = [value[order.index(index)].asnumpy() for index in range(len(order))]
    return states


def first_line(error):
    """Type and first sentence of an error, without what its stack adds."""
    text = " ".join(str(error).replace("-" * 10, " ").split())
    return {"type": type(error).__name__, "message": text[:160]}


def significant(number):
    return float(f"{number:.2g}")


def tolerances(results, single, dtype, departure):
    """The sources that mxopt must agree with, and how closely, in absolute terms.

    What torch loses in single precision is what any implementation may lose. MindSpore's own
    rounding, seen as its distance from double precision, is added where its numbers count.
    """
    exact = results["torch"].weights().astype(np.float64)
    rounding = 4 * np.abs(single.weights() - exact).max() + 1e-6
    if dtype == "float16":
        rounding = 0.01
    expected = {"torch": significant(rounding)}
    if not departure and "mindspore" in results:
        own = np.abs(results["mindspore"].weights().astype(np.float64) - exact).max()
        expected["mindspore"] = significant(rounding + 2 * own)
    return expected
