"""The schedules of mindspore.nn: the classes over a range of steps, the functions as the lists they
make."""

import math

import mindspore as ms
import numpy as np
from mindspore import nn

STEPS = 40

# fmt: off
#: class, options
CLASSES = [
    ("ExponentialDecayLR", {"learning_rate": 0.1, "decay_rate": 0.9, "decay_steps": 4}),
    ("ExponentialDecayLR", {"learning_rate": 0.1, "decay_rate": 0.5, "decay_steps": 6, "is_stair": True}),
    ("NaturalExpDecayLR", {"learning_rate": 0.1, "decay_rate": 0.1, "decay_steps": 4}),
    ("NaturalExpDecayLR", {"learning_rate": 0.1, "decay_rate": 0.1, "decay_steps": 6, "is_stair": True}),
    ("InverseDecayLR", {"learning_rate": 0.1, "decay_rate": 0.9, "decay_steps": 4}),
    ("InverseDecayLR", {"learning_rate": 0.1, "decay_rate": 0.5, "decay_steps": 6, "is_stair": True}),
    ("CosineDecayLR", {"min_lr": 0.01, "max_lr": 0.1, "decay_steps": 30}),
    ("CosineDecayLR", {"min_lr": 0.0, "max_lr": 0.3, "decay_steps": 7}),
    ("PolynomialDecayLR", {"learning_rate": 0.1, "end_learning_rate": 0.01, "decay_steps": 30, "power": 1.0}),
    ("PolynomialDecayLR", {"learning_rate": 0.1, "end_learning_rate": 0.01, "decay_steps": 12, "power": 0.5}),
    ("PolynomialDecayLR", {"learning_rate": 0.1, "end_learning_rate": 0.01, "decay_steps": 9, "power": 2.0,
                           "update_decay_steps": True}),
    ("WarmUpLR", {"learning_rate": 0.1, "warmup_steps": 12}),
]

EPOCHS = {"total_step": 40, "step_per_epoch": 4, "decay_epoch": 3}

#: function, options
FUNCTIONS = [
    ("piecewise_constant_lr", {"milestone": [2, 5, 10, 40], "learning_rates": [0.1, 0.05, 0.01, 0.2]}),
    ("piecewise_constant_lr", {"milestone": [3, 3, 7], "learning_rates": [0.1, 0.05, 0.01]}),
    ("exponential_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.9, **EPOCHS}),
    ("exponential_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.9, **EPOCHS, "is_stair": True}),
    ("natural_exp_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.9, **EPOCHS}),
    ("natural_exp_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.9, **EPOCHS, "is_stair": True}),
    ("inverse_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.5, **EPOCHS}),
    ("inverse_decay_lr", {"learning_rate": 0.1, "decay_rate": 0.5, **EPOCHS, "is_stair": True}),
    ("cosine_decay_lr", {"min_lr": 0.01, "max_lr": 0.1, **EPOCHS}),
    ("cosine_decay_lr", {"min_lr": 0.0, "max_lr": 0.1, "total_step": 40, "step_per_epoch": 4,
     "decay_epoch": 10}),
    ("polynomial_decay_lr", {"learning_rate": 0.1, "end_learning_rate": 0.01, **EPOCHS, "power": 0.5}),
    ("polynomial_decay_lr", {"learning_rate": 0.1, "end_learning_rate": 0.01, **EPOCHS, "power": 2.0,
                             "update_decay_epoch": True}),
    ("warmup_lr", {"learning_rate": 0.1, "total_step": 40, "step_per_epoch": 4, "warmup_epoch": 3}),
    ("warmup_lr", {"learning_rate": 0.1, "total_step": 10, "step_per_epoch": 3, "warmup_epoch": 9}),
]
# fmt: on


def exact_schedule(name, o, step):
    """The schedules that the optimizer cases use, in double precision."""
    if name == "ExponentialDecayLR":
        return o["learning_rate"] * o["decay_rate"] ** (step / o["decay_steps"])
    if name == "WarmUpLR":
        return o["learning_rate"] * min(step, o["warmup_steps"]) / o["warmup_steps"]
    if name == "CosineDecayLR":
        part = min(step, o["decay_steps"]) / o["decay_steps"]
        return o["min_lr"] + 0.5 * (o["max_lr"] - o["min_lr"]) * (1 + math.cos(math.pi * part))
    raise KeyError(name)


def collect():
    """The document and the arrays of collection `schedules`."""
    cases, arrays = [], {}
    for number, (name, options) in enumerate(CLASSES):
        made = getattr(nn, name)(**options)
        key = f"{name}-{number}"
        arrays[key] = np.array([float(made(ms.Tensor(step, ms.int32)).asnumpy()) for step in range(STEPS)], np.float32)
        cases.append({"name": key, "class": name, "options": options, "steps": STEPS})
    for number, (name, options) in enumerate(FUNCTIONS):
        key = f"{name}-{number}"
        arrays[key] = np.array(getattr(nn, name)(**options), dtype=np.float64)
        cases.append({"name": key, "function": name, "options": options})
    return {"cases": cases}, arrays
