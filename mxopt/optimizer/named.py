"""`create` as type checkers see it: what each name makes, with which options. Written by
`scripts/overloads`.

A name that isn't known here (a variable's, one of one's own) may have every option that some
optimizer has. A dict, `**options`, may have any: to a type checker even the key `_unpacked`. An
optimizer that is made with an option of another one is a `NoSuchOption` to it, and no optimizer.
"""
# fmt: off
# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

from typing import Any, Literal, overload

from mxopt.optimizer.adam import FTML, AdaBelief, Adam, Adamax, AdamW, Nadam
from mxopt.optimizer.adaptive import AdaDelta, Adafactor, AdaGrad, Ftrl, RMSProp
from mxopt.optimizer.base import Optimizer
from mxopt.optimizer.contrib import GroupAdaGrad
from mxopt.optimizer.layerwise import LAMB, LANS, LARS, LBSGD
from mxopt.optimizer.options import LBSGDOptions, OptimizerOptions, OptionsAndRate, SGLDOptions
from mxopt.optimizer.sgd import DCASGD, NAG, SGD, SGLD, Lion, Signum, Test, ccSGD
from mxopt.options import Unpack


class AnyOption(OptionsAndRate, total=False):
    """Every option that some optimizer has."""

    batch_scale: int
    begin_epoch: int
    beta: float
    beta1: float
    beta2: float
    bias_correction: bool
    centered: bool
    clip_threshold: float
    clip_weights: float | None
    correct_bias: bool
    decay_rate: float
    eps: float
    epsilon: float
    epsilon1: float
    epsilon2: float
    eta: float
    gamma1: float
    gamma2: float
    lamda: float
    lamda1: float
    lazy_update: bool
    lower_bound: float | None
    momentum: float
    momentum_correction: bool
    num_epochs: int
    relative_step: bool
    rho: float
    schedule_decay: float
    updates_per_epoch: int
    upper_bound: float | None
    warmup_epochs: int
    warmup_strategy: str
    wd_lh: float | None


class NoSuchOption:
    """What type checkers take an optimizer for that is made with an option of another one."""


@overload
def create(
    name: Literal["adabelief", "AdaBelief"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-06,
    correct_bias: bool = True, lazy_update: bool = False, **base: Unpack[OptimizerOptions],
) -> AdaBelief: ...
@overload
def create(name: Literal["adabelief", "AdaBelief"], *, _unpacked: Any, **options: Any) -> AdaBelief: ...
@overload
def create(name: Literal["adabelief", "AdaBelief"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adadelta", "AdaDelta"],
    *, rho: float = 0.9, epsilon: float = 1e-05, lazy_update: bool = False, **base: Unpack[OptionsAndRate],
) -> AdaDelta: ...
@overload
def create(name: Literal["adadelta", "AdaDelta"], *, _unpacked: Any, **options: Any) -> AdaDelta: ...
@overload
def create(name: Literal["adadelta", "AdaDelta"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adafactor", "Adafactor"],
    *, learning_rate: float | None = 0.01, beta1: float = 0.0, decay_rate: float = 0.8, epsilon1: float = 1e-30,
    epsilon2: float = 0.001, clip_threshold: float = 1.0, relative_step: bool = True, **base: Unpack[OptimizerOptions],
) -> Adafactor: ...
@overload
def create(name: Literal["adafactor", "Adafactor"], *, _unpacked: Any, **options: Any) -> Adafactor: ...
@overload
def create(name: Literal["adafactor", "Adafactor"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adagrad", "AdaGrad"],
    *, eps: float = 1e-07, lazy_update: bool = True, **base: Unpack[OptionsAndRate],
) -> AdaGrad: ...
@overload
def create(name: Literal["adagrad", "AdaGrad"], *, _unpacked: Any, **options: Any) -> AdaGrad: ...
@overload
def create(name: Literal["adagrad", "AdaGrad"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adam", "Adam"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-08,
    lazy_update: bool = True, **base: Unpack[OptimizerOptions],
) -> Adam: ...
@overload
def create(name: Literal["adam", "Adam"], *, _unpacked: Any, **options: Any) -> Adam: ...
@overload
def create(name: Literal["adam", "Adam"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adamax", "Adamax"],
    *, learning_rate: float | None = 0.002, beta1: float = 0.9, beta2: float = 0.999, lazy_update: bool = False,
    epsilon: float = 0.0, **base: Unpack[OptimizerOptions],
) -> Adamax: ...
@overload
def create(name: Literal["adamax", "Adamax"], *, _unpacked: Any, **options: Any) -> Adamax: ...
@overload
def create(name: Literal["adamax", "Adamax"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["adamw", "AdamW"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-06,
    correct_bias: bool = True, lazy_update: bool = False, **base: Unpack[OptimizerOptions],
) -> AdamW: ...
@overload
def create(name: Literal["adamw", "AdamW"], *, _unpacked: Any, **options: Any) -> AdamW: ...
@overload
def create(name: Literal["adamw", "AdamW"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["ccsgd", "ccSGD"],
    *, momentum: float = 0.0, lazy_update: bool = True, **base: Unpack[OptionsAndRate],
) -> ccSGD: ...
@overload
def create(name: Literal["ccsgd", "ccSGD"], *, _unpacked: Any, **options: Any) -> ccSGD: ...
@overload
def create(name: Literal["ccsgd", "ccSGD"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["dcasgd", "DCASGD"],
    *, momentum: float = 0.0, lamda: float = 0.04, lazy_update: bool = False, **base: Unpack[OptionsAndRate],
) -> DCASGD: ...
@overload
def create(name: Literal["dcasgd", "DCASGD"], *, _unpacked: Any, **options: Any) -> DCASGD: ...
@overload
def create(name: Literal["dcasgd", "DCASGD"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["ftml", "FTML"],
    *, beta1: float = 0.6, beta2: float = 0.999, epsilon: float = 1e-08, lazy_update: bool = False,
    learning_rate: float | None = None, **base: Unpack[OptimizerOptions],
) -> FTML: ...
@overload
def create(name: Literal["ftml", "FTML"], *, _unpacked: Any, **options: Any) -> FTML: ...
@overload
def create(name: Literal["ftml", "FTML"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["ftrl", "Ftrl"],
    *, lamda1: float = 0.01, learning_rate: float | None = 0.1, beta: float = 1, lazy_update: bool = False,
    **base: Unpack[OptimizerOptions],
) -> Ftrl: ...
@overload
def create(name: Literal["ftrl", "Ftrl"], *, _unpacked: Any, **options: Any) -> Ftrl: ...
@overload
def create(name: Literal["ftrl", "Ftrl"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["groupadagrad", "GroupAdaGrad"],
    *, eps: float = 1e-05, **base: Unpack[OptionsAndRate],
) -> GroupAdaGrad: ...
@overload
def create(name: Literal["groupadagrad", "GroupAdaGrad"], *, _unpacked: Any, **options: Any) -> GroupAdaGrad: ...
@overload
def create(name: Literal["groupadagrad", "GroupAdaGrad"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["lamb", "LAMB"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-06,
    lower_bound: float | None = None, upper_bound: float | None = None, bias_correction: bool = True,
    **base: Unpack[OptimizerOptions],
) -> LAMB: ...
@overload
def create(name: Literal["lamb", "LAMB"], *, _unpacked: Any, **options: Any) -> LAMB: ...
@overload
def create(name: Literal["lamb", "LAMB"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["lans", "LANS"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-06,
    lower_bound: float | None = None, upper_bound: float | None = None, **base: Unpack[OptimizerOptions],
) -> LANS: ...
@overload
def create(name: Literal["lans", "LANS"], *, _unpacked: Any, **options: Any) -> LANS: ...
@overload
def create(name: Literal["lans", "LANS"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["lars", "LARS"],
    *, momentum: float = 0.0, lazy_update: bool = True, eta: float = 0.001, eps: float = 0,
    momentum_correction: bool = True, **base: Unpack[OptionsAndRate],
) -> LARS: ...
@overload
def create(name: Literal["lars", "LARS"], *, _unpacked: Any, **options: Any) -> LARS: ...
@overload
def create(name: Literal["lars", "LARS"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["lbsgd", "LBSGD"],
    *, momentum: float = 0.0, multi_precision: bool = False, warmup_strategy: str = 'linear', warmup_epochs: int = 5,
    batch_scale: int = 1, updates_per_epoch: int = 32, begin_epoch: int = 0, num_epochs: int = 60,
    **base: Unpack[LBSGDOptions],
) -> LBSGD: ...
@overload
def create(name: Literal["lbsgd", "LBSGD"], *, _unpacked: Any, **options: Any) -> LBSGD: ...
@overload
def create(name: Literal["lbsgd", "LBSGD"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["lion", "Lion"],
    *, learning_rate: float | None = 0.0001, beta1: float = 0.9, beta2: float = 0.99, lazy_update: bool = False,
    **base: Unpack[OptimizerOptions],
) -> Lion: ...
@overload
def create(name: Literal["lion", "Lion"], *, _unpacked: Any, **options: Any) -> Lion: ...
@overload
def create(name: Literal["lion", "Lion"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["nadam", "Nadam"],
    *, learning_rate: float | None = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-08,
    schedule_decay: float = 0.004, lazy_update: bool = False, **base: Unpack[OptimizerOptions],
) -> Nadam: ...
@overload
def create(name: Literal["nadam", "Nadam"], *, _unpacked: Any, **options: Any) -> Nadam: ...
@overload
def create(name: Literal["nadam", "Nadam"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["nag", "NAG"],
    *, momentum: float = 0.0, lazy_update: bool = False, **base: Unpack[OptionsAndRate],
) -> NAG: ...
@overload
def create(name: Literal["nag", "NAG"], *, _unpacked: Any, **options: Any) -> NAG: ...
@overload
def create(name: Literal["nag", "NAG"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["rmsprop", "RMSProp"],
    *, learning_rate: float | None = 0.001, gamma1: float = 0.9, gamma2: float = 0.9, epsilon: float = 1e-08,
    centered: bool = False, clip_weights: float | None = None, lazy_update: bool = False,
    **base: Unpack[OptimizerOptions],
) -> RMSProp: ...
@overload
def create(name: Literal["rmsprop", "RMSProp"], *, _unpacked: Any, **options: Any) -> RMSProp: ...
@overload
def create(name: Literal["rmsprop", "RMSProp"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["sgd", "SGD"],
    *, momentum: float = 0.0, lazy_update: bool = True, **base: Unpack[OptionsAndRate],
) -> SGD: ...
@overload
def create(name: Literal["sgd", "SGD"], *, _unpacked: Any, **options: Any) -> SGD: ...
@overload
def create(name: Literal["sgd", "SGD"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["sgld", "SGLD"],
    *, seed: int | None = None, **base: Unpack[SGLDOptions],
) -> SGLD: ...
@overload
def create(name: Literal["sgld", "SGLD"], *, _unpacked: Any, **options: Any) -> SGLD: ...
@overload
def create(name: Literal["sgld", "SGLD"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["signum", "Signum"],
    *, learning_rate: float | None = 0.01, momentum: float = 0.9, wd_lh: float | None = 0.0, lazy_update: bool = False,
    **base: Unpack[OptimizerOptions],
) -> Signum: ...
@overload
def create(name: Literal["signum", "Signum"], *, _unpacked: Any, **options: Any) -> Signum: ...
@overload
def create(name: Literal["signum", "Signum"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(
    name: Literal["test", "Test"],
    **base: Unpack[OptionsAndRate],
) -> Test: ...
@overload
def create(name: Literal["test", "Test"], *, _unpacked: Any, **options: Any) -> Test: ...
@overload
def create(name: Literal["test", "Test"], **options: Unpack[AnyOption]) -> NoSuchOption: ...
@overload
def create(name: str, *, _unpacked: Any, **options: Any) -> Optimizer: ...
@overload
def create(name: str, **options: Unpack[AnyOption]) -> Optimizer: ...
def create(name: str, **options: Any) -> Any:
    """`Optimizer.create_optimizer`."""
    return Optimizer.create_optimizer(name, **options)
