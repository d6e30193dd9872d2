"""What MindSpore refuses: the tables of bad arguments for its optimizers and their schedulers.

Each generator gives (class, options, mark). The mark says what mxopt does: None, it raises what
MindSpore raises; "accepted", it takes what MindSpore refuses; "both", it raises a type that is both
a TypeError and a ValueError (MindSpore documents the one and raises the other); or the name of the
exception that mxopt raises instead.

`parameters` among the options says what is passed as parameters instead of a list of one parameter.
"""

from format import array, tuple_

# fmt: off
OPTIM = ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop",
    "SGD")
WITH_BETAS = ("Adam", "Adamax", "AdamW", "NAdam", "RAdam")
ZERO_RATE = ("Adam", "AdamW", "SGD")
ZERO_EPS = ("Adam", "AdamW", "Adadelta")
WITHOUT_EPS = ("ASGD", "Rprop", "SGD")

NN = ("Adadelta", "AdaFactor", "Adagrad", "Adam", "AdaMax", "AdamOffload", "AdamWeightDecay", "ASGD", "FTRL",
      "Lamb", "LazyAdam", "Momentum", "ProximalAdagrad", "RMSProp", "Rprop", "SGD")
ADAMS = ("Adam", "AdaMax", "AdamOffload", "AdamWeightDecay", "Lamb", "LazyAdam")
UNSCALED = ("AdamWeightDecay", "ASGD", "Lamb", "Rprop")

#: class of mindspore.experimental.optim: bad options, one by one, beside lr=0.1
OPTIM_OWN = {
    "Adadelta": [{"rho": 1.1}, {"rho": -0.1}],
    "Adagrad": [{"lr_decay": -0.1}, {"initial_accumulator_value": -0.1}],
    "ASGD": [{"lambd": 1}, {"t0": 10}],
    "NAdam": [{"momentum_decay": -0.1}],
    "RMSprop": [{"momentum": -0.1}, {"alpha": -0.1}],
    "Rprop": [{"etas": tuple_(0.5, 1.0)}, {"etas": tuple_(1.0, 1.2)}],
    "SGD": [{"momentum": -0.1}, {"nesterov": True}, {"momentum": 0.9, "dampening": 0.1, "nesterov": True}],
}

#: class of mindspore.nn: bad options, one by one, beside learning_rate=0.1
NN_OWN = {
    "Momentum": [{"momentum": -0.1}, {"momentum": 1}, {"momentum": "0.9"},
                 {"momentum": 0.9, "use_nesterov": 1}],
    "SGD": [{"momentum": -0.1}, {"momentum": "0.9"}, {"momentum": 1}, {"dampening": -0.1}, {"nesterov": 1},
            {"nesterov": True}, {"momentum": 0.9, "dampening": 0.1, "nesterov": True}],
    "Adam": [{"use_lazy": True, "use_offload": True}, {"use_amsgrad": True, "use_lazy": True},
             {"use_other": True}, {"use_locking": 1}, {"use_nesterov": 1}, {"use_amsgrad": 1}],
    "Adagrad": [{"accum": -0.1}, {"accum": 1}, {"update_slots": 1}],
    "ProximalAdagrad": [{"accum": -0.1}, {"l1": -0.1}, {"l2": 1}],
    "Adadelta": [{"rho": 1.1}, {"rho": 1}, {"epsilon": -0.1}],
    "RMSProp": [{"decay": -0.1}, {"decay": 1}, {"momentum": -0.1}, {"epsilon": 0.0}, {"centered": 1},
                {"use_locking": 1}],
    "FTRL": [{"initial_accum": -0.1}, {"lr_power": 0.1}, {"l1": -0.1}, {"l2": 1}, {"learning_rate": 0.0},
             {"learning_rate": [0.1, 0.2]}, {"use_locking": 1}],
    "ASGD": [{"lambd": 1}, {"alpha": 1}, {"t0": 1}],
    "Rprop": [{"etas": [0.5, 1.2]}, {"etas": tuple_(0.5)}, {"etas": tuple_(0.5, 1.0)},
              {"etas": tuple_(1.0, 1.2)}, {"step_sizes": tuple_(2.0, 1.0)}, {"step_sizes": tuple_(1e-6, 50)}],
    "AdaFactor": [{}, {"relative_step": False, "learning_rate": None},
                  {"relative_step": False, "warmup_init": True}, {"relative_step": False, "beta1": -0.1},
                  {"relative_step": False, "clip_threshold": -1.0},
                  {"relative_step": False, "decay_rate": 1.0}, {"relative_step": False, "weight_decay": 1.0},
                  {"relative_step": False, "compression": 1}, {"relative_step": False, "eps": tuple_(0.1)}],
}

#: class of lr_scheduler: good options, and bad ones to put beside or in place of them
SCHEDULERS = [
    ("ExponentialLR", {"gamma": 0.9}, [{"last_epoch": 3}, {"last_epoch": -2}, {"gamma": 1},
                                        {"optimizer": "number"}]),
    ("StepLR", {"step_size": 2}, [{"step_size": 1.5}, {"gamma": 1}]),
    ("LinearLR", {}, [{"start_factor": 0.0}, {"start_factor": 1.1}, {"end_factor": 1.1}, {"end_factor": -0.1},
                      {"total_iters": 1.5}]),
    ("ConstantLR", {}, [{"factor": 1.1}, {"factor": -0.1}, {"total_iters": 1.5}]),
    ("PolynomialLR", {}, [{"power": 1}, {"power": -1.0}, {"total_iters": 1.5}]),
    ("LambdaLR", {}, [{"lr_lambda": []}]),
    ("MultiplicativeLR", {}, [{"lr_lambda": []}]),
    ("MultiStepLR", {"milestones": [1]}, [{"milestones": tuple_(1, 2)}, {"milestones": [1.5]},
                                          {"gamma": "0.1"}, {"gamma": 1}]),
    ("SequentialLR", {}, [{"schedulers": [], "milestones": [1]}]),
    ("ReduceLROnPlateau", {}, [{"factor": 1.0}, {"mode": "mid"}, {"threshold_mode": "mid"},
                               {"min_lr": [0.1, 0.2]}, {"optimizer": "number"}]),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2}, [{"mode": "mid"}, {"base_lr": [0.1, 0.2]},
                                                   {"max_lr": [0.1, 0.2]}]),
    ("CosineAnnealingWarmRestarts", {"T_0": 2}, [{"T_0": 0}, {"T_0": 1.5}, {"T_mult": 0}, {"T_mult": 1.5}]),
    ("CosineAnnealingLR", {"T_max": 5}, [{"T_max": 1.5}, {"eta_min": "0"}]),
]
# fmt: on


def optim_cases():
    for name in OPTIM:
        for parameters in ("none", "empty", "number", "numbers", "set", "twice"):
            yield name, {"lr": 0.1, "parameters": parameters}, None
        yield name, {"lr": -0.1}, None
        yield name, {"lr": 0.0}, None if name in ZERO_RATE else "accepted"
        for lr in ("0.1", None, [0.1]):
            yield name, {"lr": lr}, "both"
        yield name, {"lr": array(0.1, 0.2)}, "ValueError"
        if name != "Rprop":
            yield name, {"lr": 0.1, "weight_decay": -0.1}, None
        if name in WITH_BETAS:
            for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)):
                yield name, {"lr": 0.1, "betas": tuple_(*betas)}, None
        if name not in WITHOUT_EPS:
            yield name, {"lr": 0.1, "eps": -1e-8}, None
            yield name, {"lr": 0.1, "eps": 0.0}, None if name in ZERO_EPS else "accepted"
        for bad in OPTIM_OWN.get(name, ()):
            yield name, {"lr": 0.1, **bad}, None
    yield "SGD", {}, None
    for bad in (
        {"momentum": "0.9"},
        {"dampening": "0"},
        {"weight_decay": "0"},
        {"nesterov": 1},
        {"maximize": 1},
    ):
        yield "SGD", {"lr": 0.1, **bad}, "both"


def nn_cases():
    for name in NN:
        usual = {"learning_rate": 0.1}
        good = {"Momentum": {"momentum": 0.9}, "AdaFactor": {"relative_step": False}}.get(name, {}) | usual
        for parameters in ("none", "empty", "number", "numbers", "twice", "unknown key", "order and more"):
            yield name, {**good, "parameters": parameters}, None
        for lr in (-0.1, array(0.1), {"$matrix": 2}):
            yield name, {**good, "learning_rate": lr}, None
        if name != "AdaFactor":
            yield name, {**good, "learning_rate": "0.1"}, "both"
            yield name, {**good, "learning_rate": None}, None
        for wd in (-0.1, "0.1"):
            yield name, {**good, "weight_decay": wd}, None
        if name not in UNSCALED:
            for scale in (0.0, -1.0, "1"):
                yield name, {**good, "loss_scale": scale}, None
        if name in ADAMS:
            for bad in ({"beta1": 1.0}, {"beta2": 0.0}, {"beta1": 1}, {"eps": 0.0}, {"eps": 1}):
                yield name, {**good, **bad}, None
        for bad in NN_OWN.get(name, ()):
            yield name, {**usual, **bad}, None
    yield "Lamb", {}, None
    for bad in ({"epsilon": 1}, {"coefficient": 1}, {"use_clip": 1}):
        yield "LARS", bad, None
    yield "LARS", {"optimizer": "number"}, "TypeError"


def scheduler_cases():
    for name, good, table in SCHEDULERS:
        for bad in table:
            yield name, {**good, **bad}, None
    yield "ExponentialLR", {"gamma": 0.9, "last_epoch": 1.5}, "both"
    yield "CosineAnnealingWarmRestarts", {"T_0": 2, "eta_min": "0"}, "both"
