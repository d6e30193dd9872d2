"""The table of cases for mindspore.experimental.optim: one line, one case.

A line is (class, label, options, extra). The keys of `extra`:

    problem    which problem of `problems` (default "dense")
    groups     a list of {"params": [indices], option: value, ...}; without it one group of all parameters
    events     what happens before a step: {"step": k, "group": i, "assign": lr} sets the rate as MindSpore's
               schedulers do, {"step", "group", "set": lr} writes it into the group, and
               {"step", "add": group} adds a group
    scheduler  {"class": ..., "options": ...}, stepped after every optimizer step
    departure  MindSpore departs from its documentation here: only the numbers of torch are expected
"""

from format import tuple_

BETAS = tuple_(0.8, 0.95)
EPS = "epsilon is added before the bias correction"
AMSGRAD = "amsgrad is ignored"
CHAIN = "a rate written into a group cuts the scheduler off"
ADDED = "a group added after construction makes the next step fail"
HALF = {"problem": "half"}
TINY = {"problem": "tiny"}


def two_groups(**second):
    """Parameters 2 and 0 with the optimizer's options, parameter 1 with its own."""
    return {"groups": [{"params": [2, 0]}, {"params": [1], **second}]}


def rates(*changes):
    return {"events": [{"step": step, "group": 0, "assign": lr} for step, lr in changes]}


def scheduler(name, **options):
    return {"scheduler": {"class": name, "options": options}}


# fmt: off
CASES = [
    ("Adadelta", "default", {}, {}),
    ("Adadelta", "lr", {"lr": 0.3}, {}),
    ("Adadelta", "rho-eps", {"lr": 0.5, "rho": 0.7, "eps": 1e-2}, {}),
    ("Adadelta", "wd-max", {"weight_decay": 0.1, "maximize": True}, {}),
    ("Adadelta", "groups", {"lr": 0.5}, two_groups(lr=0.1, rho=0.5, eps=1e-3, weight_decay=0.2,
     maximize=True)),
    ("Adadelta", "scheduler", {}, scheduler("ExponentialLR", gamma=0.7)),
    ("Adadelta", "float16", {"lr": 0.3}, HALF),
    ("Adagrad", "default", {}, {}),
    ("Adagrad", "lr-decay", {"lr": 0.3, "lr_decay": 0.2}, {}),
    ("Adagrad", "accumulator", {"lr": 0.3, "initial_accumulator_value": 0.5, "eps": 1e-2}, {}),
    ("Adagrad", "wd-max", {"lr": 0.3, "weight_decay": 0.1, "maximize": True}, {}),
    ("Adagrad", "groups", {"lr": 0.5}, two_groups(lr=0.1, lr_decay=0.5, eps=1e-3, weight_decay=0.2,
     maximize=True)),
    ("Adagrad", "scheduler", {"lr": 0.5}, scheduler("StepLR", step_size=3, gamma=0.2)),
    ("Adagrad", "float16", {"lr": 0.3}, {**HALF, "departure": "float16 parameters never change"}),
    ("Adam", "default", {}, {}),
    ("Adam", "lr", {"lr": 0.1}, {}),
    ("Adam", "betas", {"lr": 0.1, "betas": BETAS}, {}),
    ("Adam", "betas-0", {"lr": 0.1, "betas": tuple_(0.0, 0.9)}, {}),
    ("Adam", "eps", {"lr": 0.1, "eps": 1e-2}, {"departure": EPS}),
    ("Adam", "eps-large", {"lr": 0.5, "eps": 0.5}, {"departure": EPS}),
    ("Adam", "tiny-gradients", {"lr": 0.1}, {**TINY, "departure": EPS}),
    ("Adam", "wd", {"lr": 0.1, "weight_decay": 0.1}, {}),
    ("Adam", "max", {"lr": 0.1, "maximize": True}, {}),
    ("Adam", "amsgrad", {"lr": 0.1, "amsgrad": True, "betas": BETAS}, {"departure": AMSGRAD}),
    ("Adam", "amsgrad-wd-max", {"lr": 0.3, "amsgrad": True, "weight_decay": 0.2, "maximize": True,
     "betas": BETAS},
     {"departure": AMSGRAD}),
    ("Adam", "groups", {"lr": 0.1}, two_groups(lr=0.3, betas=BETAS, weight_decay=0.2, maximize=True)),
    ("Adam", "rates", {"lr": 0.1}, rates((2, 0.3), (5, 0.01))),
    ("Adam", "scheduler", {"lr": 0.2}, scheduler("ExponentialLR", gamma=0.5)),
    ("Adam", "scheduler-and-rates", {"lr": 0.2},
     {**scheduler("ExponentialLR", gamma=0.5), **rates((3, 0.4))}),
    ("Adam", "written-rate", {"lr": 0.2},
     {"events": [{"step": 3, "group": 0, "set": 0.05}]}),
    ("Adam", "written-rate-and-scheduler", {"lr": 0.2},
     {**scheduler("ExponentialLR", gamma=0.5), "events": [{"step": 3, "group": 0, "set": 0.4}],
         "departure": CHAIN}),
    ("Adam", "added-group", {"lr": 0.1},
     {"groups": [{"params": [0, 1]}], "events": [{"step": 0, "add": {"params": [2], "lr": 0.3}}],
         "departure": ADDED}),
    ("Adam", "float16", {"lr": 0.1}, HALF),
    ("AdamW", "default", {}, {}),
    ("AdamW", "lr", {"lr": 0.1}, {}),
    ("AdamW", "betas-eps", {"lr": 0.1, "betas": BETAS, "eps": 1e-2}, {}),
    ("AdamW", "wd", {"lr": 0.1, "weight_decay": 0.3}, {}),
    ("AdamW", "no-wd-max", {"lr": 0.1, "weight_decay": 0.0, "maximize": True}, {}),
    ("AdamW", "amsgrad", {"lr": 0.1, "amsgrad": True, "betas": BETAS}, {}),
    ("AdamW", "amsgrad-wd-max", {"lr": 0.3, "amsgrad": True, "weight_decay": 0.2, "maximize": True,
     "betas": BETAS}, {}),
    ("AdamW", "groups", {"lr": 0.1}, two_groups(lr=0.3, betas=BETAS, eps=1e-3, weight_decay=0.2,
     amsgrad=True)),
    ("AdamW", "rates", {"lr": 0.1}, rates((2, 0.3), (5, 0.01))),
    ("AdamW", "tiny-gradients", {"lr": 0.1}, TINY),
    ("AdamW", "float16", {"lr": 0.1}, HALF),
    ("Adamax", "default", {}, {}),
    ("Adamax", "betas-eps", {"lr": 0.1, "betas": BETAS, "eps": 1e-2}, {}),
    ("Adamax", "wd-max", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, {}),
    ("Adamax", "groups", {"lr": 0.1}, two_groups(lr=0.3, betas=BETAS, eps=1e-3, weight_decay=0.2,
     maximize=True)),
    ("Adamax", "scheduler", {"lr": 0.2}, scheduler("LinearLR", total_iters=4)),
    ("Adamax", "float16", {"lr": 0.1}, HALF),
    ("ASGD", "default", {}, {}),
    ("ASGD", "lambd", {"lr": 0.1, "lambd": 0.2, "alpha": 0.5}, {}),
    ("ASGD", "averaging", {"lr": 0.1, "t0": 2.0, "lambd": 0.01}, {}),
    ("ASGD", "wd-max", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, {}),
    ("ASGD", "groups", {"lr": 0.1}, two_groups(lr=0.3, lambd=0.1, alpha=1.0, t0=3.0, weight_decay=0.2,
     maximize=True)),
    ("ASGD", "rates", {"lr": 0.1, "lambd": 0.1}, rates((2, 0.3), (5, 0.01))),
    ("ASGD", "float16", {"lr": 0.1}, HALF),
    ("NAdam", "default", {}, {}),
    ("NAdam", "betas-eps", {"lr": 0.1, "betas": BETAS, "eps": 1e-2}, {}),
    ("NAdam", "wd", {"lr": 0.1, "weight_decay": 0.1}, {}),
    ("NAdam", "momentum-decay", {"lr": 0.1, "momentum_decay": 0.2}, {}),
    ("NAdam", "groups", {"lr": 0.1}, two_groups(lr=0.3, betas=BETAS, eps=1e-3, weight_decay=0.2,
     momentum_decay=0.1)),
    ("NAdam", "rates", {"lr": 0.1}, rates((2, 0.3), (5, 0.01))),
    ("NAdam", "float16", {"lr": 0.1}, HALF),
    ("RAdam", "default", {}, {}),
    ("RAdam", "lr", {"lr": 0.1}, {}),
    ("RAdam", "betas-eps", {"lr": 0.1, "betas": BETAS, "eps": 1e-2}, {}),
    ("RAdam", "never-rectified", {"lr": 0.1, "betas": tuple_(0.9, 0.6)}, {}),
    ("RAdam", "wd", {"lr": 0.1, "weight_decay": 0.1}, {}),
    ("RAdam", "groups", {"lr": 0.1}, two_groups(lr=0.3, betas=BETAS, eps=1e-3, weight_decay=0.2)),
    ("RAdam", "scheduler", {"lr": 0.1}, scheduler("StepLR", step_size=2, gamma=0.5)),
    ("RAdam", "float16", {"lr": 0.1}, HALF),
    ("RMSprop", "default", {}, {}),
    ("RMSprop", "alpha-eps", {"lr": 0.1, "alpha": 0.8, "eps": 1e-2}, {}),
    ("RMSprop", "momentum", {"lr": 0.05, "momentum": 0.9}, {}),
    ("RMSprop", "centered", {"lr": 0.05, "centered": True}, {}),
    ("RMSprop", "centered-momentum", {"lr": 0.05, "centered": True, "momentum": 0.8, "alpha": 0.9}, {}),
    ("RMSprop", "wd-max", {"lr": 0.05, "weight_decay": 0.1, "maximize": True}, {}),
    ("RMSprop", "groups", {"lr": 0.1},
     two_groups(lr=0.03, alpha=0.9, eps=1e-3, weight_decay=0.2, momentum=0.5, centered=True, maximize=True)),
    ("RMSprop", "rates", {"lr": 0.05}, rates((2, 0.1), (5, 0.01))),
    ("RMSprop", "float16", {"lr": 0.05}, HALF),
    ("Rprop", "default", {}, {}),
    ("Rprop", "etas", {"lr": 0.1, "etas": tuple_(0.3, 1.5)}, {}),
    ("Rprop", "step-sizes", {"lr": 0.1, "step_sizes": tuple_(0.08, 0.13)}, {}),
    ("Rprop", "max", {"lr": 0.1, "maximize": True}, {}),
    ("Rprop", "groups", {"lr": 0.1},
     two_groups(lr=0.3, etas=tuple_(0.4, 1.4), step_sizes=tuple_(0.2, 0.5), maximize=True)),
    ("Rprop", "rates", {"lr": 0.1}, rates((2, 0.3), (5, 0.01))),
    ("Rprop", "float16", {"lr": 0.1}, {**HALF, "departure": "float16 parameters make the step fail"}),
    ("SGD", "plain", {"lr": 0.1}, {}),
    ("SGD", "wd", {"lr": 0.1, "weight_decay": 0.1}, {}),
    ("SGD", "max", {"lr": 0.1, "maximize": True}, {}),
    ("SGD", "momentum", {"lr": 0.1, "momentum": 0.9}, {}),
    ("SGD", "dampening", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, {}),
    ("SGD", "dampening-only", {"lr": 0.1, "dampening": 0.3}, {}),
    ("SGD", "nesterov", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {}),
    ("SGD", "nesterov-wd-max", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1,
     "maximize": True}, {}),
    ("SGD", "groups", {"lr": 0.1, "momentum": 0.5},
     two_groups(lr=0.03, momentum=0.9, weight_decay=0.2, nesterov=True, maximize=True)),
    ("SGD", "rates", {"lr": 0.1, "momentum": 0.9}, rates((2, 0.3), (5, 0.01))),
    ("SGD", "scheduler", {"lr": 0.1, "momentum": 0.9}, scheduler("CosineAnnealingLR", T_max=5)),
    ("SGD", "added-group", {"lr": 0.1},
     {"groups": [{"params": [0, 1]}], "events": [{"step": 3, "add": {"params": [2], "lr": 0.3}}],
         "departure": ADDED}),
    ("SGD", "float16", {"lr": 0.1, "momentum": 0.9}, HALF),
]
# fmt: on
