"""Helpers of the scripts that measure MXNet: train an optimizer on seeded gradients, train a
formula, compare."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import numpy as np
from real_mxnet import mx

OPTIMIZERS = (
    *("sgd", "nag", "signum", "lars", "lbsgd", "dcasgd"),
    *("adam", "adamax", "nadam", "ftml", "lamb"),
    *("rmsprop", "adagrad", "adadelta", "ftrl"),
)
WITH_MOMENTUM = ("sgd", "nag", "signum", "lars", "lbsgd")
REFUSALS = (mx.base.MXNetError, ValueError, TypeError, AssertionError, ZeroDivisionError, Warning)
SHAPE = (3, 4)
STEPS = 3


def start(shape=SHAPE, dtype="float32", seed=1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def gradients(shape=SHAPE, steps=STEPS, dtype="float32", seed=2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(steps)]


def create(name: str, **options):
    with redirect_stdout(io.StringIO()):
        return mx.optimizer.create(name, **options)


class Run:
    """One parameter trained by MXNet through its updater."""

    def __init__(self, name: str, dtype="float32", weight=None, grads=None, steps=STEPS, single=False, **options):
        self.optimizer = create(name, **options)
        shape = SHAPE if weight is None else weight.shape
        self.weight = mx.nd.array(start(dtype=dtype) if weight is None else weight, dtype=dtype)
        self.state = self.optimizer.create_state_multi_precision(0, self.weight)
        updater = mx.optimizer.get_updater(self.optimizer)
        updater.states, updater.states_synced = {0: self.state}, {0: True}
        self.path = [self.weight.asnumpy().astype("float64")]
        for grad in gradients(shape, steps, dtype) if grads is None else grads:
            grad = mx.nd.array(grad, dtype=dtype)
            if single:
                self.optimizer.update_multi_precision(0, self.weight, grad, self.state)
            else:
                updater(0, grad, self.weight)
            self.path.append(self.weight.asnumpy().astype("float64"))

    @property
    def end(self) -> np.ndarray:
        return self.path[-1]

    def states(self) -> list[np.ndarray]:
        parts = self.state if isinstance(self.state, (tuple, list)) else [self.state]
        return [part.asnumpy().astype("float64") for part in parts if part is not None]


Rule = Callable[[np.ndarray, np.ndarray, dict, int], np.ndarray]


def by_formula(rule: Rule, steps=STEPS, dtype="float32", **state) -> np.ndarray:
    """The weight after `rule(weight, grad, state, t) -> weight`, in doubles, on what `Run` starts
    from."""
    weight = start(dtype=dtype).astype("float64")
    for t, grad in enumerate(gradients(steps=steps, dtype=dtype), start=1):
        weight = rule(weight, grad.astype("float64"), state, t)
    return weight


def apart(a, b) -> float:
    return float(np.max(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64"))))


def outcome(function: Callable, *args, **kwargs) -> str:
    """What a call ends in: "ran", or the error's type and the line that matters."""
    try:
        function(*args, **kwargs)
    except REFUSALS as error:
        lines = [line.strip() for line in str(error).splitlines() if "Check failed" in line or "Cannot find" in line]
        return f"{type(error).__name__}: {(lines or str(error).splitlines() or [''])[-1][:110]}"
    return "ran"


def report(label: str, **numbers) -> None:
    shown = [f"{key} {value:.2g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items()]
    print(f"{label:<52} " + ", ".join(shown))
