"""States that MXNet 1.x saved: `Updater.get_states`, a local kvstore's and gluon's
`Trainer.save_states`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mxopt.arguments import arguments_of
from mxopt.errors import StatesError
from mxopt.lr_scheduler import LRScheduler
from mxopt.migrate.ndarrays import read_array
from mxopt.migrate.pickles import Name, Record, read_pickle, shown
from mxopt.optimizer import LBSGD, Optimizer, Updater, get_updater
from mxopt.optimizer.base import Index
from mxopt.options import number
from mxopt.sparse import RowSparse
from mxopt.typing import Document, Plain, State

NDARRAYS = ("mxnet.ndarray.ndarray", "mxnet.ndarray.sparse", "mxnet.numpy.multiarray")
# Constructor arguments that MXNet's objects keep under another name.
ATTRIBUTES = {"learning_rate": "lr", "pwr": "power", "eps": "float_stable_eps"}
OWN = ("lr_scheduler", "sym", "param_dict", "param_idx2name", "begin_epoch", "seed")  # not taken from the file


def read_mxnet_states(path: str | os.PathLike[str], optimizer: Optimizer | None = None) -> Updater:
    """An updater that continues from states that MXNet saved.

    The file is a pickle. It is read as data: nothing in it is imported or called.

    Parameters
    ----------
    path : path
        What `Updater.get_states`, `kvstore.save_optimizer_states` or gluon's `Trainer.save_states`
        wrote.
    optimizer : Optimizer, optional
        The optimizer that the states belong to. A file that contains the optimizer (gluon's, and
        what `dump_optimizer=True` wrote) needs none; one that is given is used instead, and takes
        over the file's update counts.

    Returns
    -------
    Updater
        With the states, on the CPU. Its `get_states(dump_optimizer=True)` gives mxopt's own
        document, which `Updater.set_states`, `Trainer.load_states` and stores take. A file without
        the optimizer has no update counts either: they start again, as in MXNet. The indices are
        the file's: gluon's Trainer numbers parameters in the order of their sorted names.

    Raises
    ------
    StatesError
        The file is damaged or holds something else, or the optimizer can't be made.
    OSError
        It can't be read.

    >>> updater = read_mxnet_states("adam.states")  # doctest: +SKIP
    >>> trainer_file = updater.get_states(dump_optimizer=True)  # doctest: +SKIP
    """
    data = Path(path).read_bytes()
    if data[:1] != b"\x80":
        raise StatesError(f"{path}: MXNet's states are a pickle of protocol 2 or later; this begins with {data[:8]!r}")
    try:
        content = read_pickle(data)
        saved = None
        if isinstance(content, tuple) and len(content) == 2:
            content, saved = content
        if not isinstance(content, dict) or not (saved is None or isinstance(saved, Record)):
            raise StatesError("it holds no states: neither a dict nor a pair of a dict and an optimizer")
        if saved is None and optimizer is None:
            raise StatesError("the optimizer is not in the file: give the one that the states are of")
        arrays = _Arrays()
        states = {_index(index): arrays.state(state, f"the state of {index!r}") for index, state in content.items()}
        if optimizer is None:
            optimizer = _optimizer(saved)  # type: ignore[arg-type]
        known = {} if saved is None else saved.attributes
        if known:
            _take_counts(optimizer, known, states)
        if isinstance(optimizer, LBSGD) and optimizer.batch_scale > 1:
            _join_sums(optimizer, known.get("cumgrads", {}), states, arrays)
    except StatesError as error:
        raise StatesError(f"{path}: {error}") from error
    except Exception as error:  # whatever a damaged file leads to
        raise StatesError(f"{path}: the states are damaged: {type(error).__name__}: {error}") from error
    updater = get_updater(optimizer)
    updater.states = states
    updater.states_synced = dict.fromkeys(states, False)
    return updater


def _index(index: object) -> Index:
    if isinstance(index, bytes):
        return index.decode()
    if isinstance(index, int | str):
        return index
    raise StatesError(f"an index is an int or a text, not {shown(index)}")


class _Arrays:
    """Reads the arrays in a pickle, each once. MXNet never stores one array in two places; a small
    file that did could ask for any amount of memory."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}  # keeps them, so that no other gets the same id

    def state(self, state: State, what: str) -> Any:
        """A state, with MXNet's arrays as NumPy's."""
        if state is None:
            return None
        if isinstance(state, tuple | list):
            if state:  # Python has one empty tuple
                self._once(state, what)
            return tuple(self.state(part, what) for part in state)
        return self.array(state, what)

    def array(self, value: Any, what: str) -> np.ndarray:
        """One of MXNet's arrays as NumPy's."""
        if not isinstance(value, Record) or value.kind.module not in NDARRAYS:
            raise StatesError(
                f"{what} is no array of MXNet's: {value.kind if isinstance(value, Record) else shown(value)}"
            )
        handle = value.attributes.get("handle")
        if not isinstance(handle, bytes):
            raise StatesError(f"{what} has no value")
        self._once(handle, what)
        array = read_array(handle)
        if array is None:
            raise StatesError(f"{what} has no value")
        return array.todense() if isinstance(array, RowSparse) else array

    def _once(self, thing: object, what: str) -> None:
        if id(thing) in self._seen:
            raise StatesError(f"{what} stands in another place, too")
        self._seen[id(thing)] = thing


# The optimizer.


def _optimizer(saved: Record) -> Optimizer:
    """An optimizer like the saved one: of the class registered under its name, with its
    options."""
    known = saved.attributes
    klass: type[Optimizer] = Optimizer.registry.find(_described(saved.kind, saved.kind.name.lower()))
    arguments = _arguments(klass, known)
    if issubclass(klass, LBSGD):
        arguments["begin_epoch"] = _number(known, "init_updates") // max(1, int(_number(known, "updates_per_epoch")))
    try:
        scheduler = _scheduler(known.get("lr_scheduler"), int(_number(known, "num_update")))
        if scheduler is not None:
            arguments["learning_rate"] = None  # a number would overwrite the schedule's base_lr
        names = _table(known, "idx2name", str)
        optimizer = klass(**arguments, param_idx2name=names, lr_scheduler=scheduler)
        optimizer.lr = _plain(known.get("lr"), "the optimizer's lr")
        optimizer.lr_mult, optimizer.wd_mult = (_table(known, n, int | float) for n in ("lr_mult", "wd_mult"))
    except StatesError:
        raise
    except Exception as error:  # whatever the class raises
        raise StatesError(f"the optimizer {saved.kind} can't be made: {type(error).__name__}: {error}") from error
    return optimizer


def _arguments(klass: type, known: Document) -> Plain:
    """The constructor's arguments, from the attributes of a saved object."""
    found = {}
    for name in arguments_of(klass):
        attribute = ATTRIBUTES.get(name, name)
        attribute = attribute if attribute in known else name
        if name not in OWN and attribute in known:
            found[name] = _plain(known[attribute], f"{klass.__name__}: {name}")
    return found


def _plain(value: object, what: str) -> Any:
    """An option's value: None, a number, a text, or a list of numbers."""
    numbers = isinstance(value, list | tuple) and all(isinstance(x, int | float) for x in value)
    if not numbers and not isinstance(value, int | float | str | None):
        raise StatesError(f"{what} is {shown(value)}")
    return value


def _table(known: Mapping[str, Any], name: str, kind: Any) -> dict[Any, Any]:
    """A dict of the optimizer's, with values of one kind."""
    table = known.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(value, kind) for value in table.values()):
        raise StatesError(f"the optimizer's {name} is {shown(table)}")
    return dict(table)


def _scheduler(saved: Any, num_update: int) -> LRScheduler | None:
    """A schedule that continues from where the saved one was at that update."""
    if saved is None:
        return None
    kind = saved.kind if isinstance(saved, Record) else Name("builtins", type(saved).__name__)
    klass: type[LRScheduler] = LRScheduler.registry.find(_described(kind, kind.name))
    known = saved.attributes
    names = {"base_lr": "warmup_final_lr", "pwr": "power"}
    of = {n: names.get(n, n) for n in arguments_of(klass) if names.get(n, n) in known}
    arguments = {n: _plain(known[attribute], f"{klass.__name__}: {n}") for n, attribute in of.items()}
    scheduler = klass(**arguments)
    since = num_update if num_update >= scheduler.warmup_steps else 0  # a warm-up ignores an assigned base_lr
    scheduler.assigned = (number("base_lr", known["base_lr"]), since)
    return scheduler


def _described(kind: Name, name: str) -> dict[str, str]:
    """The description by which a registry finds a class of MXNet's or the caller's."""
    module = "mxopt" if kind.module.partition(".")[0] == "mxnet" else kind.module
    return {"name": name, "module": module, "qualname": kind.name}


def _number(known: Document, name: str) -> float:
    value = known.get(name, 0)
    if not isinstance(value, int | float):
        raise StatesError(f"the optimizer's {name} is {shown(value)}")
    return value


# Counts and sums: MXNet keeps them in the optimizer, mxopt in counts and states.


def _take_counts(optimizer: Optimizer, known: Mapping[str, Any], states: dict[Index, Any]) -> None:
    devices = known.get("_all_index_update_counts", {0: known.get("_index_update_count", {})})
    counts: Plain = {**optimizer.get_counts(), "num_update": known.get("num_update"), "devices": devices}
    if known.get("cur_lr") is not None:  # of LARS
        counts["previous_lr"] = dict.fromkeys(states, _number(known, "cur_lr"))
    optimizer.set_counts(counts)


def _join_sums(optimizer: LBSGD, kept: Mapping[Any, Any], states: dict[Index, Any], arrays: _Arrays) -> None:
    """Puts the gradients that LBSGD has summed so far into the states, where mxopt keeps them."""
    for index, state in list(states.items()):
        inner, master = optimizer.split(state) if isinstance(state, tuple) else (state, None)
        total = kept.get(index, {}).get("cum_grad", 0)
        if isinstance(total, Record):
            total = arrays.array(total, f"the sum of gradients of {index!r}")
        elif inner is not None or master is not None:  # nothing summed since the last step
            total = np.zeros_like(master if inner is None else inner)
        else:  # and no velocity: the state of a weight that was never updated
            del states[index]
            continue
        if master is not None:
            total = total.astype(np.float32)
        states[index] = (inner, total) if master is None else optimizer.join((inner, total), master)
