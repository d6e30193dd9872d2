"""The table of optimizers: all of every front-end, with the options that change their mathematics,
a row each.

Every cross-check reads it: engines, precisions, forms of gradients, threads, GPUs, stores,
Trainers, copies, interruptions, NaN, saved and narrow states. A new optimizer joins all of them by
its rows here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from bitwise import GroupedRun, Run

import mxopt
from mxopt import nn
from mxopt.arguments import arguments_of
from mxopt.experimental import optim
from mxopt.rules.rule import Rule

# What a row can't do.
WIDE = "states in bfloat16"
WHOLE = "slices of an array by themselves"
ALONE = "steps in stores and Trainers"
DENSE = "updates of row-sparse weights"


class Row:
    """An optimizer's name, options for `create`, and what it can't do."""

    def __init__(self, name: str, *cannot: str, **options: Any) -> None:
        self.name, self.cannot, self.options = name, cannot, options

    def make(self, **more: Any) -> Any:
        """A new optimizer. Every one made from one row with the same `more` does the same."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mxopt.create(self.name, **{**self.options, **more})

    def run(self, weights: list[Any], engine: str = "llvm", as_list: bool = True, **more: Any) -> Run:
        """A run of these weights, which it changes."""
        return Run(self.make(**more), weights, engine, as_list)

    @property
    def rules(self) -> list[Rule]:
        """The rule that its steps are, if they are one."""
        made: Any = self.make()
        return [made.rule]

    @property
    def takes_lazy_update(self) -> bool:
        return "lazy_update" in arguments_of(mxopt.Optimizer.opt_registry[self.name])

    @property
    def elementwise(self) -> bool:
        return WHOLE not in self.cannot

    @property
    def narrow(self) -> bool:
        return WIDE not in self.cannot

    @property
    def dense(self) -> bool:
        return DENSE in self.cannot

    @property
    def alone(self) -> bool:
        return ALONE in self.cannot

    def __str__(self) -> str:
        return self.name + "".join(f"-{k}={v}" for k, v in self.options.items() if FULL.get(k) != v) + self._full()

    def _full(self) -> str:
        return "-full" if "rescale_grad" in self.options else ""


class Grouped(Row):
    """A class of `experimental.optim` or of `nn`, which is made with its parameters."""

    def over(self, params: list[Any], **more: Any) -> Any:
        """A new optimizer of these parameters or groups."""
        family, _, name = self.name.partition(".")
        options = {**self.options, **more}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "LARS":  # which wraps another
                return nn.LARS(nn.Momentum(params, **{"learning_rate": 0.5, "momentum": 0.9, **options}), use_clip=True)
            return getattr(nn if family == "nn" else optim, name)(params, **options)

    def run(self, weights: list[Any], engine: str = "llvm", as_list: bool = True, **more: Any) -> GroupedRun:
        params = [mxopt.Parameter(w, f"w{k}") for k, w in enumerate(weights)]
        return GroupedRun(self.over(params, **more), weights, engine)

    @property
    def rules(self) -> list[Rule]:
        optimizer = self.over([np.ones(2, np.float32)])
        rule = getattr(optimizer, "rule", None)
        return [rule] if isinstance(rule, Rule) else [] if rule is None else [rule(optimizer.param_groups[0])]

    @property
    def takes_lazy_update(self) -> bool:
        return self.name.startswith("experimental.") and all(rule.lazy for rule in self.rules)


# What every optimizer has, with values that matter.
FULL = {"learning_rate": 0.05, "wd": 0.0625, "rescale_grad": 0.75, "clip_gradient": 0.5}

ROWS = [
    Row("sgd"),
    Row("sgd", **FULL),
    Row("sgd", momentum=0.9, **FULL),
    Row("ccsgd", momentum=0.5),
    Row("nag", **FULL),
    Row("nag", momentum=0.9, **FULL),
    Row("signum"),
    Row("signum", wd_lh=0.125, **FULL),
    Row("signum", momentum=0, wd_lh=0.125, **FULL),
    Row("lion"),
    Row("lion", beta1=0.75, beta2=0.5, **FULL),
    Row("dcasgd", WIDE, **FULL),
    Row("dcasgd", WIDE, momentum=0.9, lamda=0.5, **FULL),
    Row("sgld", WHOLE, seed=7, **FULL),
    Row("test", WIDE, rescale_grad=0.75),
    Row("adam"),
    Row("adam", **FULL),
    Row("adamw", **FULL),
    Row("adamw", correct_bias=False, wd=0.0625),
    Row("adabelief", **FULL),
    Row("adabelief", correct_bias=False),
    Row("adamax", **FULL),
    Row("adamax", epsilon=0.25),
    Row("nadam", schedule_decay=0.25, **FULL),
    Row("ftml", WIDE, **FULL),
    Row("adagrad"),
    Row("adagrad", **FULL),
    Row("groupadagrad", WIDE, WHOLE, **{**FULL, "wd": 0.0}),
    Row("adadelta", **FULL),
    Row("rmsprop", **FULL),
    Row("rmsprop", WIDE, centered=True, clip_weights=0.875, **FULL),
    Row("ftrl", WIDE),
    Row("ftrl", WIDE, lamda1=0.5, **FULL),
    Row("lars", WHOLE, **FULL),
    Row("lars", WHOLE, momentum=0.9, eta=0.5, eps=0.25, **FULL),
    Row("lbsgd", warmup_strategy="power2", batch_scale=2, updates_per_epoch=2, **FULL),
    Row("lbsgd", momentum=0.9, warmup_strategy="sqrt", batch_scale=2, updates_per_epoch=2),
    Row("lbsgd", WHOLE, warmup_strategy="lars", **FULL),
    Row("lbsgd", WHOLE, momentum=0.9, warmup_strategy="lars", batch_scale=2),
    Row("lamb", WHOLE),
    Row("lamb", WHOLE, lower_bound=0.5, upper_bound=2.0, **FULL),
    Row("lamb", WHOLE, bias_correction=False, wd=0.0625),
    Row("lans", WHOLE),
    Row("lans", WHOLE, lower_bound=0.5, upper_bound=2.0, **FULL),
    Row("adafactor", WIDE, WHOLE, DENSE, **FULL),
    Row("adafactor", WIDE, WHOLE, DENSE, beta1=0.5, decay_rate=0.5, relative_step=False, epsilon2=0.25),
]


EXPERIMENTAL = [
    Grouped("experimental.Adadelta", lr=0.5, weight_decay=0.1),
    Grouped("experimental.Adagrad", lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5),
    Grouped("experimental.Adagrad", lr=0.1),
    Grouped("experimental.Adam", lr=0.1, weight_decay=0.1),
    Grouped("experimental.Adam", lr=0.1, weight_decay=0.1, amsgrad=True),
    Grouped("experimental.AdamW", lr=0.1, weight_decay=0.1),
    Grouped("experimental.AdamW", lr=0.1, weight_decay=0.1, amsgrad=True),
    Grouped("experimental.Adamax", lr=0.1, weight_decay=0.1),
    Grouped("experimental.ASGD", WIDE, WHOLE, lr=0.1, lambd=0.1, t0=2.0, weight_decay=0.1),
    Grouped("experimental.NAdam", WHOLE, lr=0.1, weight_decay=0.1),
    Grouped("experimental.RAdam", lr=0.1, weight_decay=0.1),
    Grouped("experimental.RMSprop", lr=0.05, weight_decay=0.1),
    Grouped("experimental.RMSprop", lr=0.05, momentum=0.9),
    Grouped("experimental.RMSprop", WIDE, lr=0.05, centered=True),
    Grouped("experimental.RMSprop", WIDE, lr=0.05, momentum=0.9, centered=True),
    Grouped("experimental.Rprop", WIDE, lr=0.1),
    Grouped("experimental.SGD", lr=0.1),
    Grouped("experimental.SGD", lr=0.1, weight_decay=0.1),
    Grouped("experimental.SGD", lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    Grouped("experimental.SGD", lr=0.1, momentum=0.9, nesterov=True),
]

SCHEDULE = nn.ExponentialDecayLR(0.1, 0.5, 3)
NN = [
    Grouped("nn.SGD"),
    Grouped("nn.SGD", momentum=0.9, dampening=0.1),
    Grouped("nn.SGD", momentum=0.9, nesterov=True),
    Grouped("nn.Momentum", learning_rate=SCHEDULE, momentum=0.9),
    Grouped("nn.Adam"),
    Grouped("nn.Adam", use_nesterov=True),
    Grouped("nn.Adam", use_amsgrad=True),
    Grouped("nn.LazyAdam"),
    Grouped("nn.AdamOffload"),
    Grouped("nn.AdamWeightDecay"),
    Grouped("nn.AdaMax"),
    Grouped("nn.Adadelta"),
    Grouped("nn.Adagrad"),
    Grouped("nn.Adagrad", update_slots=False),
    Grouped("nn.ProximalAdagrad", l1=0.01, l2=0.01),
    Grouped("nn.RMSProp"),
    Grouped("nn.RMSProp", momentum=0.9),
    Grouped("nn.RMSProp", WIDE, centered=True),
    Grouped("nn.FTRL", WIDE, l1=0.01, l2=0.01),
    Grouped("nn.FTRL", WIDE, lr_power=-0.7),
    Grouped("nn.ASGD", WIDE, WHOLE, learning_rate=SCHEDULE, lambd=0.1, t0=2.0),
    Grouped("nn.Rprop", WIDE),
    Grouped("nn.AdaFactor", WIDE, WHOLE, DENSE),
    Grouped("nn.AdaFactor", WIDE, WHOLE, DENSE, beta1=0.0),
    Grouped("nn.Lamb", WHOLE, learning_rate=SCHEDULE),
    Grouped("nn.LARS", WIDE, WHOLE, ALONE),
]
GROUPED = EXPERIMENTAL + NN
ALL = ROWS + GROUPED

# Weight dtype, and whether there is a float32 master copy.
PRECISIONS = [
    ("float32", False), ("float64", False), ("float16", False), ("bfloat16", False),
    ("float16", True), ("bfloat16", True),
]  # fmt: skip


# Every row in every precision.
CROSSED = [(row, dtype, master) for row in ROWS for dtype, master in PRECISIONS]


def crossed_id(value: Any) -> str:
    """How pytest calls a value of `CROSSED`."""
    return str(value) if not isinstance(value, bool) else "master" if value else "plain"
