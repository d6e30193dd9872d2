"""Optimizers and schedules as plain data: a registered name, and arguments that MessagePack can
carry.

This is how an optimizer is saved, and how it reaches a server. The receiver calls the class that is
registered there under the name; it executes nothing that it received.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mxopt.arguments import arguments_of, attribute_of
from mxopt.errors import StatesError
from mxopt.lr_scheduler import LRScheduler
from mxopt.optimizer.base import Optimizer
from mxopt.options import number
from mxopt.typing import Document, Plain

ENTRIES = {"name", "module", "qualname", "arguments", "idx2name", "lr_mult", "wd_mult", "scheduler"}  # of a config
AS_IT_IS = (type(None), bool, int, float, str)


def optimizer_config(optimizer: Optimizer) -> Plain:
    """Everything that `make_optimizer` needs to make an equal optimizer, except its update counts.

    Raises StatesError if an argument isn't plain data, or isn't kept under its own name.
    """
    described = Optimizer.registry.describe(type(optimizer))
    arguments = _arguments(optimizer, skip=("lr_scheduler", "sym", "param_dict", "param_idx2name"))
    return {
        **described,
        "arguments": arguments,
        "idx2name": list(optimizer.idx2name.items()),
        "lr_mult": list(optimizer.lr_mult.items()),
        "wd_mult": list(optimizer.wd_mult.items()),
        "scheduler": _scheduler_config(optimizer.lr_scheduler),
    }


def make_optimizer(config: Document) -> Optimizer:
    """The optimizer that a config describes. Raises StatesError if it can't be made."""
    if not isinstance(config, Mapping):
        raise StatesError(f"an optimizer's config is a dict, not {config!r:.80}")
    unknown = config.keys() - ENTRIES
    if unknown:
        raise StatesError(f"an optimizer's config has no entry {min(map(str, unknown))!r}")
    try:
        klass, arguments = Optimizer.registry.find(config), dict(config["arguments"])
        scheduler, rate = _make_scheduler(config["scheduler"]), arguments.get("learning_rate")
        if scheduler is not None and "learning_rate" in arguments:
            arguments["learning_rate"] = None  # a number would overwrite the schedule's base_lr
        optimizer: Optimizer = klass(**arguments, param_idx2name=dict(config["idx2name"]), lr_scheduler=scheduler)
        if rate is not None:
            number("learning_rate", rate)
        if rate is not None or scheduler is not None:
            optimizer.lr = rate
        optimizer.lr_mult, optimizer.wd_mult = (_multipliers(config, what) for what in ("lr_mult", "wd_mult"))
    except StatesError:
        raise
    except Exception as error:  # whatever the class raises
        raise StatesError(f"the saved optimizer can't be made: {error}") from error
    return optimizer


def _multipliers(config: Document, what: str) -> dict[Any, float]:
    found = dict(config[what])
    for key, value in found.items():
        number(f"{what} of {key!r}", value)
    return found


def _arguments(thing: Any, skip: tuple[str, ...]) -> Plain:
    arguments = {}
    for name in (*arguments_of(type(thing)), *thing.unnamed_arguments):
        if name in skip:
            continue
        try:
            value = getattr(thing, attribute_of(type(thing), name))
        except AttributeError:
            raise StatesError(
                f"{type(thing).__name__} can't be saved: it doesn't keep its argument {name!r} under that name"
            ) from None
        arguments[name] = _plain(value, f"{type(thing).__name__} can't be saved: {name}")
    return arguments


def _plain(value: object, what: str) -> Any:
    """`value`, with lists for tuples and numbers for arrays without axes."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(value, AS_IT_IS):
        return value
    if isinstance(value, list | tuple):
        return [_plain(x, what) for x in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(x, f"{what}, {key}") for key, x in value.items()}
    raise StatesError(f"{what} is {value!r}, no number, text, list or dict of them")


def _scheduler_config(scheduler: LRScheduler | None) -> Plain | None:
    if scheduler is None:
        return None
    described = LRScheduler.registry.describe(type(scheduler))
    assigned = _plain(scheduler.assigned, f"{type(scheduler).__name__} can't be saved: assigned")
    return {**described, "arguments": _arguments(scheduler, skip=()), "assigned": assigned}


def _make_scheduler(config: Document | None) -> LRScheduler | None:
    if config is None:
        return None
    scheduler: LRScheduler = LRScheduler.registry.find(config)(**config["arguments"])
    rate, update = config["assigned"]
    scheduler.assigned = (number("the scheduler's rate", rate), int(update))
    return scheduler
