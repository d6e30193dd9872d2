"""The table of optimizers: every optimizer with the options that change its mathematics, a row
each.

The tests cross it with dtypes, master copies, forms of gradients, engines, threads and saved
states. A new optimizer joins all of them by its rows here.
"""

from __future__ import annotations

import warnings
from typing import Any

import mxopt
from mxopt.arguments import arguments_of


class Row:
    """An optimizer's name, and options for `create`."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name, self.options = name, options

    def make(self, **more: Any) -> mxopt.Optimizer:
        """A new optimizer. Every one made from one row with the same `more` does the same."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mxopt.create(self.name, **{**self.options, **more})

    @property
    def takes_lazy_update(self) -> bool:
        return "lazy_update" in arguments_of(mxopt.Optimizer.opt_registry[self.name])

    @property
    def elementwise(self) -> bool:
        """Whether a slice of an array can be updated by itself."""
        optimizer = self.make()
        return not optimizer.rule.layerwise and not optimizer.rule.reductions and self.name != "sgld"

    def __str__(self) -> str:
        return self.name + "".join(f"-{k}={v}" for k, v in self.options.items() if FULL.get(k) != v) + self._full()

    def _full(self) -> str:
        return "-full" if "rescale_grad" in self.options else ""


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
    Row("dcasgd", **FULL),
    Row("dcasgd", momentum=0.9, lamda=0.5, **FULL),
    Row("sgld", seed=7, **FULL),
    Row("test", rescale_grad=0.75),
    Row("adam"),
    Row("adam", **FULL),
    Row("adamw", **FULL),
    Row("adamw", correct_bias=False, wd=0.0625),
    Row("adabelief", **FULL),
    Row("adabelief", correct_bias=False),
    Row("adamax", **FULL),
    Row("adamax", epsilon=0.25),
    Row("nadam", schedule_decay=0.25, **FULL),
    Row("ftml", **FULL),
    Row("adagrad"),
    Row("adagrad", **FULL),
    Row("groupadagrad", **{**FULL, "wd": 0.0}),
    Row("adadelta", **FULL),
    Row("rmsprop", **FULL),
    Row("rmsprop", centered=True, clip_weights=0.875, **FULL),
    Row("ftrl"),
    Row("ftrl", lamda1=0.5, **FULL),
    Row("lars", **FULL),
    Row("lars", momentum=0.9, eta=0.5, eps=0.25, **FULL),
    Row("lbsgd", warmup_strategy="power2", batch_scale=2, updates_per_epoch=2, **FULL),
    Row("lbsgd", momentum=0.9, warmup_strategy="sqrt", batch_scale=2, updates_per_epoch=2),
    Row("lbsgd", warmup_strategy="lars", **FULL),
    Row("lbsgd", momentum=0.9, warmup_strategy="lars", batch_scale=2),
    Row("lamb"),
    Row("lamb", lower_bound=0.5, upper_bound=2.0, **FULL),
    Row("lamb", bias_correction=False, wd=0.0625),
    Row("lans"),
    Row("lans", lower_bound=0.5, upper_bound=2.0, **FULL),
]

# Those whose rules reduce over rows and columns, which NumPy does: there are no kernels of these to
# compare.
REDUCING = [
    Row("adafactor", **FULL),
    Row("adafactor", beta1=0.5, decay_rate=0.5, relative_step=False, epsilon2=0.25),
]

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
