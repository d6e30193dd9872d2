"""Runs the tables of bad arguments on MindSpore and collects what it raises, for `errors.json`."""

import mindspore as ms
import mindspore.experimental.optim as ms_optim
import numpy as np
from errors import nn_cases, optim_cases, scheduler_cases
from format import decode
from mindspore import nn

# fmt: off
EXPONENTIAL = {"learning_rate": 0.1, "decay_rate": 0.9, "decay_steps": 4}
POLYNOMIAL = {"learning_rate": 0.1, "end_learning_rate": 0.01, "decay_steps": 4, "power": 1.0}
COSINE = {"min_lr": 0.01, "max_lr": 0.1, "decay_steps": 4}
EPOCHS = {"learning_rate": 0.1, "decay_rate": 0.9, "total_step": 6, "step_per_epoch": 2, "decay_epoch": 1}
WARM = {"learning_rate": 0.1, "total_step": 6, "step_per_epoch": 2, "warmup_epoch": 1}
PIECES = {"milestone": [2, 5], "learning_rates": [0.1, 0.05]}

#: schedule or function of mindspore.nn, good options, bad ones to try one by one
SCHEDULES = [
    ("ExponentialDecayLR", EXPONENTIAL,
     [("learning_rate", 0.0), ("learning_rate", 1), ("decay_rate", 0.0), ("decay_rate", 1),
         ("decay_steps", 0),
      ("decay_steps", 1.5), ("is_stair", 1)]),
    ("NaturalExpDecayLR", EXPONENTIAL, [("learning_rate", -0.1), ("decay_rate", -0.1), ("decay_steps", 0)]),
    ("InverseDecayLR", EXPONENTIAL, [("learning_rate", -0.1), ("decay_rate", -0.1), ("decay_steps", 0)]),
    ("CosineDecayLR", COSINE, [("min_lr", -0.1), ("min_lr", 0), ("min_lr", 0.1), ("max_lr", 0.0),
     ("max_lr", 1),
                               ("decay_steps", 0), ("decay_steps", 1.5)]),
    ("PolynomialDecayLR", POLYNOMIAL,
     [("learning_rate", 0.0), ("end_learning_rate", -0.1), ("end_learning_rate", 0.1), ("decay_steps", 0),
      ("power", 0.0), ("power", 1), ("update_decay_steps", 1)]),
    ("WarmUpLR", {"learning_rate": 0.1, "warmup_steps": 4},
     [("learning_rate", -0.1), ("learning_rate", 1), ("warmup_steps", 0), ("warmup_steps", 1.5)]),
    ("piecewise_constant_lr", PIECES,
     [("milestone", [5, 2]), ("milestone", [2]), ("milestone", [0, 2]), ("milestone", (2, 5)),
      ("milestone", [1.5, 2]), ("milestone", 3), ("learning_rates", [1, 2]), ("learning_rates", 0.1)]),
    ("exponential_decay_lr", EPOCHS,
     [("learning_rate", 0.0), ("decay_rate", 0.0), ("total_step", 0), ("step_per_epoch", 0),
         ("decay_epoch", 0),
      ("total_step", 1.5), ("is_stair", 1)]),
    ("natural_exp_decay_lr", EPOCHS, [("learning_rate", 0.0), ("decay_rate", 0.0), ("is_stair", 1)]),
    ("inverse_decay_lr", EPOCHS, [("learning_rate", 0.0), ("decay_rate", 0.0), ("is_stair", 1)]),
    ("cosine_decay_lr", {"min_lr": 0.01, "max_lr": 0.1, "total_step": 6, "step_per_epoch": 2,
     "decay_epoch": 1},
     [("min_lr", -0.1), ("min_lr", 0.1), ("max_lr", 0.0), ("max_lr", 1), ("decay_epoch", 0)]),
    ("polynomial_decay_lr",
     {"learning_rate": 0.1, "end_learning_rate": 0.01, "total_step": 6, "step_per_epoch": 2, "decay_epoch": 1,
      "power": 1.0},
     [("learning_rate", 0.0), ("end_learning_rate", -0.1), ("power", 0.0), ("power", 1),
         ("update_decay_epoch", 1)]),
    ("warmup_lr", WARM,
     [("learning_rate", 0.0), ("learning_rate", 1), ("total_step", 0), ("warmup_epoch", 0),
         ("warmup_epoch", 1.5)]),
]
# fmt: on


def parameter(name="p0"):
    return ms.Parameter(ms.Tensor(np.ones(3, np.float32)), name=name)


def parameters(kind):
    one, two = parameter(), parameter("p1")
    return {
        "one": [one],
        "none": None,
        "empty": [],
        "number": 3,
        "numbers": [1, 2],
        "set": {one, two},
        "twice": [{"params": [one]}, {"params": [one]}],
        "unknown key": [{"params": [one], "momentums": 0.1}],
        "order and more": [{"params": [one]}, {"order_params": [one], "lr": 0.1}],
    }[kind]


def tensor(value):
    return ms.Tensor(value)


def value_of(value):
    if isinstance(value, dict) and "$matrix" in value:
        return ms.Tensor(np.full((value["$matrix"], value["$matrix"]), 0.1, np.float32))
    return decode(value, tensor, nn)


def arguments(options, *special):
    return {key: value_of(value) for key, value in options.items() if key not in special}


def optim(name, options):
    kind = options.get("parameters", "one")
    given = [{"params": parameters(kind)}] if kind == "set" else parameters(kind)
    getattr(ms_optim, name)(given, **arguments(options, "parameters"))


def optimizer(name, options):
    if name == "LARS":
        inner = 3 if options.get("optimizer") == "number" else nn.SGD([parameter()], learning_rate=0.1)
        nn.LARS(inner, **arguments(options, "optimizer"))
    else:
        getattr(nn, name)(parameters(options.get("parameters", "one")), **arguments(options, "parameters"))


def scheduler(name, options):
    inner = 3 if options.get("optimizer") == "number" else ms_optim.SGD([parameter()], lr=0.1)
    getattr(ms_optim.lr_scheduler, name)(inner, **arguments(options, "optimizer"))


def schedule(name, options):
    getattr(nn, name)(**arguments(options))


def schedule_cases():
    for name, good, bad in SCHEDULES:
        for key, value in bad:
            value = {"$tuple": list(value)} if isinstance(value, tuple) else value
            yield name, {**good, key: value}, None


#: what mxopt raises instead, by the mark in the table
INSTEAD = {"accepted": [], "both": ["TypeError", "ValueError"]}


def outcome(call, name, options):
    try:
        call(name, options)
    except Exception as error:
        return [type(error).__name__]
    return []


def collect():
    """The document of `errors.json`."""
    tables = {
        "experimental.optim": (optim, optim_cases),
        "nn": (optimizer, nn_cases),
        "experimental.optim.lr_scheduler": (scheduler, scheduler_cases),
        "nn.schedules": (schedule, schedule_cases),
    }
    cases = []
    for where, (call, table) in tables.items():
        for name, options, instead in table():
            raised = outcome(call, name, options)
            expected = raised if instead is None else INSTEAD.get(instead, [instead])
            case = {
                "where": where,
                "name": name,
                "options": options,
                "mindspore": raised,
                "expected": expected,
            }
            cases.append(case)
    return {"cases": cases}
