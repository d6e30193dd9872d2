"""The table of cases for the optimizers of mindspore.nn: one line, one case.

A line is (class, label, options, extra). The keys of `extra`:

    problem    which problem of `problems` (default "dense")
    groups     a list of {"params": [indices], "lr", "weight_decay", "grad_centralization"} or {"order_params": [...]}
    inner      the optimizer inside LARS: [class, options]
    target     what the property `target` is set to: "CPU" takes MindSpore's fused operators for sparse rows
    departure  MindSpore departs from its documentation here, or can't run it: only the formula is expected
"""

from format import array, schedule, tuple_

# fmt: off
HALF, TINY, NAMED = {"problem": "half"}, {"problem": "tiny"}, {"problem": "named"}
EPS = {"departure": "epsilon is added before the bias correction"}
IGNORED = {"departure": "use_nesterov is ignored"}
NO_HALF = {"departure": "float16 parameters make the step fail"}
SLOTS = {"departure": "update_slots is ignored"}
L1 = {"departure": "l1 has the wrong sign"}
BLOCKS = {"departure": "epsilon is outside the root in whole blocks of 8 elements, inside it in the rest"}
NOT_ADDED = {"problem": "repeated", "departure": "rows that come twice are not added up"}
NO_ROWS = {"problem": "rows", "departure": "without target = 'CPU' the operator doesn't exist on CPUs"}
MISSING = {"departure": "the operator doesn't exist on CPUs"}
CENTRED = {"departure": "gradient centralization doesn't exist on CPUs"}
ROWS, ROWS_CPU = {"problem": "rows"}, {"problem": "rows", "target": "CPU"}
REPEATED = {"problem": "repeated", "target": "CPU"}
EXP = schedule("ExponentialDecayLR", learning_rate=0.2, decay_rate=0.5, decay_steps=3)
COS = schedule("CosineDecayLR", min_lr=0.01, max_lr=0.3, decay_steps=6)
WARM = schedule("WarmUpLR", learning_rate=0.3, warmup_steps=5)
LIST = [0.3, 0.2, 0.1, 0.05, 0.3, 0.2, 0.1, 0.05]
BY_LIST = [{"params": [2], "lr": LIST}, {"params": [0, 1], "weight_decay": 0.2}]
BY_RATE = [{"params": [2, 0], "lr": 0.05, "weight_decay": 0.2}, {"params": [1]}]
# fmt: on


def groups(*entries, **extra):
    return {"groups": list(entries), **extra}


def common(name, least, decay=True, scale=True, moving=True):
    """The cases that every optimizer gets: each option of the base class alone, groups, 16 bits."""
    yield (name, "defaults", {key: least[key] for key in least if key in REQUIRED.get(name, ())}, {})
    yield (name, "lr", least, {})
    if decay:
        yield (name, "wd-names", {**least, "weight_decay": 0.1}, NAMED)
        yield (
            name,
            "wd-names-grouped",
            {**least, "weight_decay": 0.1},
            groups({"params": [2, 0, 1]}, **NAMED),
        )
    if scale:
        yield (name, "loss-scale-wd", {**least, "weight_decay": 0.1, "loss_scale": 8.0}, {})
    if moving:
        yield (name, "schedule", {**least, "learning_rate": EXP}, {})
        yield (name, "groups", {**least, "weight_decay": 0.1}, {"groups": BY_RATE})
    yield (name, "float16", least, {**HALF, **NO_HALF} if name in ("FTRL", "AdamOffload") else HALF)


REQUIRED = {"Momentum": ("learning_rate", "momentum"), "Lamb": ("learning_rate",)}

# fmt: off
CASES = [
    *common("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", "plain", {"learning_rate": 0.1}, {}),
    ("SGD", "dampening", {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.3}, {}),
    ("SGD", "dampening-only", {"learning_rate": 0.1, "dampening": 0.3}, {}),
    ("SGD", "nesterov", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {}),
    ("SGD", "list", {"learning_rate": LIST}, {}),
    ("SGD", "array", {"learning_rate": array(*LIST)}, {}),
    ("SGD", "ordered", {"learning_rate": 0.1}, groups(*BY_RATE, {"order_params": [1, 0, 2]})),
    ("SGD", "group-list", {"learning_rate": 0.1}, {"groups": BY_LIST}),
    ("SGD", "centralized", {"learning_rate": 0.1, "weight_decay": 0.1, "loss_scale": 4.0},
     groups({"params": [0, 1, 2], "grad_centralization": True}, problem="conv", **CENTRED)),
    *common("Momentum", {"learning_rate": 0.1, "momentum": 0.9}),
    ("Momentum", "nesterov", {"learning_rate": 0.1, "momentum": 0.9, "use_nesterov": True}, IGNORED),
    ("Momentum", "nesterov-wd", {"learning_rate": 0.1, "momentum": 0.8, "use_nesterov": True,
     "weight_decay": 0.1},
     IGNORED),
    ("Momentum", "cosine", {"learning_rate": COS, "momentum": 0.9}, {}),
    ("Momentum", "warm-up", {"learning_rate": WARM, "momentum": 0.9}, {}),
    ("Momentum", "wd-schedule", {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": EXP,
     "loss_scale": 4.0}, {}),
    ("Momentum", "group-schedules", {"learning_rate": COS, "momentum": 0.9},
     groups({"params": [0], "lr": EXP}, {"params": [1], "lr": 0.05, "weight_decay": EXP}, {"params": [2]})),
    *common("Adam", {"learning_rate": 0.1}),
    ("Adam", "betas", {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95}, {}),
    ("Adam", "eps", {"learning_rate": 0.1, "eps": 1e-2}, EPS),
    ("Adam", "tiny-gradients", {"learning_rate": 0.1}, {**TINY, **EPS}),
    ("Adam", "nesterov", {"learning_rate": 0.1, "use_nesterov": True, "weight_decay": 0.1}, {}),
    ("Adam", "amsgrad", {"learning_rate": 0.1, "use_amsgrad": True, "beta1": 0.8, "beta2": 0.9}, {}),
    ("Adam", "amsgrad-groups", {"learning_rate": 0.1, "use_amsgrad": True, "beta2": 0.9},
     {"groups": BY_RATE}),
    ("Adam", "offload", {"learning_rate": 0.1, "use_offload": True}, {}),
    ("Adam", "lazy-dense", {"learning_rate": 0.1, "use_lazy": True}, {}),
    ("Adam", "rows", {"learning_rate": 0.1, "weight_decay": 0.1, "loss_scale": 4.0}, ROWS),
    ("Adam", "rows-cpu", {"learning_rate": 0.1}, ROWS_CPU),
    ("Adam", "rows-repeated", {"learning_rate": 0.1}, REPEATED),
    ("Adam", "rows-repeated-plain", {"learning_rate": 0.1}, NOT_ADDED),
    ("Adam", "rows-nesterov", {"learning_rate": 0.1, "use_nesterov": True}, ROWS),
    ("Adam", "rows-lazy", {"learning_rate": 0.1, "use_lazy": True}, ROWS),
    *common("AdamOffload", {"learning_rate": 0.1}),
    ("AdamOffload", "eps", {"learning_rate": 0.1, "eps": 1e-2}, {}),
    ("AdamOffload", "nesterov", {"learning_rate": 0.1, "use_nesterov": True}, {}),
    *common("LazyAdam", {"learning_rate": 0.1}),
    ("LazyAdam", "eps", {"learning_rate": 0.1, "eps": 1e-2}, EPS),
    ("LazyAdam", "rows", {"learning_rate": 0.1, "weight_decay": 0.1}, ROWS),
    ("LazyAdam", "rows-cpu", {"learning_rate": 0.1}, ROWS_CPU),
    ("LazyAdam", "rows-repeated", {"learning_rate": 0.1}, REPEATED),
    ("LazyAdam", "rows-repeated-plain", {"learning_rate": 0.1}, NOT_ADDED),
    ("LazyAdam", "rows-nesterov", {"learning_rate": 0.1, "use_nesterov": True}, ROWS),
    *common("AdamWeightDecay", {"learning_rate": 0.1}, scale=False),
    ("AdamWeightDecay", "eps-betas", {"learning_rate": 0.1, "eps": 1e-2, "beta1": 0.8, "beta2": 0.95}, {}),
    ("AdamWeightDecay", "wd-schedule", {"learning_rate": 0.1, "weight_decay": EXP}, {}),
    *common("AdaMax", {"learning_rate": 0.1}),
    ("AdaMax", "betas-eps", {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2}, {}),
    *common("Adagrad", {"learning_rate": 0.3}),
    ("Adagrad", "accum", {"learning_rate": 0.3, "accum": 0.7}, {}),
    ("Adagrad", "fixed-slots", {"learning_rate": 0.3, "accum": 0.7, "update_slots": False}, SLOTS),
    *common("ProximalAdagrad", {"learning_rate": 0.3}),
    ("ProximalAdagrad", "l1-l2", {"learning_rate": 0.3, "l1": 0.4, "l2": 0.3, "accum": 0.5}, {}),
    ("ProximalAdagrad", "rows", {"learning_rate": 0.3, "l1": 0.1, "l2": 0.2}, ROWS_CPU),
    ("ProximalAdagrad", "rows-plain", {"learning_rate": 0.3}, NO_ROWS),
    ("ProximalAdagrad", "rows-repeated", {"learning_rate": 0.3, "l1": 0.1, "l2": 0.2}, REPEATED),
    *common("Adadelta", {"learning_rate": 0.5}),
    ("Adadelta", "rho-epsilon", {"learning_rate": 0.5, "rho": 0.7, "epsilon": 1e-2}, {}),
    *common("RMSProp", {"learning_rate": 0.05}),
    ("RMSProp", "momentum", {"learning_rate": 0.05, "momentum": 0.9, "decay": 0.8, "epsilon": 1e-2}, BLOCKS),
    ("RMSProp", "momentum-small-epsilon", {"learning_rate": 0.05, "momentum": 0.9, "decay": 0.8}, {}),
    ("RMSProp", "centered", {"learning_rate": 0.05, "centered": True, "momentum": 0.5, "epsilon": 1e-2}, {}),
    ("RMSProp", "centered-groups", {"learning_rate": 0.05, "centered": True}, {"groups": BY_RATE}),
    *common("FTRL", {"learning_rate": 0.3}, moving=False),
    ("FTRL", "l1-l2", {"learning_rate": 0.3, "l1": 0.4, "l2": 0.3, "initial_accum": 0.5}, L1),
    ("FTRL", "lr-power", {"learning_rate": 0.3, "lr_power": -0.7}, {}),
    ("FTRL", "rows", {"learning_rate": 0.3, "l1": 0.1, "l2": 0.2}, ROWS),
    ("FTRL", "rows-repeated", {"learning_rate": 0.3, "l1": 0.1, "l2": 0.2}, REPEATED),
    ("FTRL", "rows-repeated-plain", {"learning_rate": 0.3}, NOT_ADDED),
    *common("ASGD", {"learning_rate": 0.1}, scale=False),
    ("ASGD", "lambd", {"learning_rate": 0.1, "lambd": 0.2, "alpha": 0.5, "t0": 2.0}, {}),
    *common("Rprop", {"learning_rate": 0.1}, scale=False),
    ("Rprop", "etas-sizes", {"learning_rate": 0.1, "etas": tuple_(0.3, 1.5),
     "step_sizes": tuple_(0.08, 0.13)}, {}),
    ("AdaFactor", "defaults", {}, {}),
    ("AdaFactor", "no-moment", {"beta1": 0.0}, {}),
    ("AdaFactor", "warm-up", {"warmup_init": True}, {}),
    ("AdaFactor", "wd", {"weight_decay": 0.1}, {}),
    ("AdaFactor", "clip", {"clip_threshold": 0.5, "decay_rate": 0.6, "eps": tuple_(1e-6, 1e-2)}, {}),
    ("AdaFactor", "lr", {"learning_rate": 0.1, "relative_step": False, "scale_parameter": False}, {}),
    ("AdaFactor", "lr-scaled", {"learning_rate": 0.1, "relative_step": False}, {}),
    ("AdaFactor", "schedule", {"learning_rate": EXP, "relative_step": False, "scale_parameter": False}, {}),
    ("AdaFactor", "float16", {"learning_rate": 0.1, "relative_step": False}, HALF),
    ("Lamb", "lr", {"learning_rate": 0.1}, MISSING),
    ("Lamb", "betas-eps", {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2}, MISSING),
    ("Lamb", "wd-names", {"learning_rate": 0.1, "weight_decay": 0.1}, {**NAMED, **MISSING}),
    ("Lamb", "groups", {"learning_rate": 0.1, "weight_decay": 0.1}, {"groups": BY_RATE, **MISSING}),
    ("LARS", "momentum", {"coefficient": 0.1},
     {"inner": ["Momentum", {"learning_rate": 0.5, "momentum": 0.9, "weight_decay": 0.1}], **MISSING}),
    ("LARS", "clip", {"use_clip": True, "coefficient": 0.2, "epsilon": 1e-2},
     {"inner": ["SGD", {"learning_rate": 0.3, "momentum": 0.9}], **MISSING}),
    ("LARS", "filter", {"coefficient": 0.1},
     {"inner": ["SGD", {"learning_rate": 0.3, "weight_decay": 0.1}], "problem": "layers", **MISSING}),
]
# fmt: on
