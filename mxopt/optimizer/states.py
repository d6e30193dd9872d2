"""An updater's states as a document: the states, whose they are, the update counts, and the
optimizer if asked for.

"Whose" means the kind of the states (optimizer, rule, and whatever else shapes them), and each
parameter's name, shape and dtype. Loading compares this with the optimizer, and with the parameters
that it knows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mxopt import plain
from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError, counted
from mxopt.optimizer.base import Index, Optimizer
from mxopt.optimizer.config import make_optimizer, optimizer_config
from mxopt.typing import Array, Document, Plain, State

ENTRIES = {"states", "kind", "parameters", "complete", "counts", "optimizer"}
SHOWN = 5  # differences that a message lists


class Described(NamedTuple):
    """What is known of a parameter; None for what is unknown."""

    name: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def described(thing: Any, name: str | None = None) -> Described:
    """What is known of the parameter `thing`: an array, a `Parameter`, or anything with shape and
    dtype."""
    shape, dtype = getattr(thing, "shape", None), getattr(thing, "dtype", None)
    if isinstance(dtype, np.dtype):
        dtype = dtype.newbyteorder("=")  # states are always in this machine's byte order
    return Described(name, None if shape is None else tuple(map(int, shape)), None if dtype is None else str(dtype))


@dataclass(frozen=True)
class Loaded:
    """What `load` read. `complete`: `parameters` are all of the optimizer's, including those
    without a state. `sums`: accumulated gradients, as in `Sums.waiting`."""

    states: dict[Index, State]
    kind: Plain
    parameters: dict[Index, Described]
    complete: bool
    counts: Plain
    config: Plain | None
    sums: dict[Index, tuple[int, Any]] = field(default_factory=dict)

    @property
    def key_counts(self) -> dict[Index, int]:
        """The update count of each index."""
        counts: dict[Index, int] = self.counts.get("devices", {}).get(0, {})
        return counts


def dump(
    states: dict[Index, Any],
    optimizer: Optimizer,
    parameters: Mapping[Index, Described],
    dump_optimizer: bool,
    sums: Mapping[Index, tuple[int, Any]] | None = None,
) -> bytes:
    """The states of an updater, with the update counts, the accumulated gradients, and the
    optimizer if asked for.

    `parameters` is what is known of those that have a state; the optimizer's own `param_dict` knows
    more.
    """
    own = _own(optimizer, states)
    known = {index: parameters.get(index, Described())._replace(name=optimizer.idx2name.get(index)) for index in states}
    known.update(own)
    content = {
        "states": states,
        "kind": optimizer.state_kind(),
        "parameters": {index: tuple(each) for index, each in known.items()},
        "complete": bool(own),
        "counts": optimizer.get_counts(),
        "optimizer": optimizer_config(optimizer) if dump_optimizer else None,
    }
    if sums:
        content["sums"] = dict(sums)
    return dump_document(content)


def load(document: bytes) -> Loaded:
    """Reads what `dump` wrote. Raises StatesError for anything else."""
    content = load_document(document)
    try:
        sums = content.pop("sums", {})
        if content.keys() != ENTRIES:
            raise StatesError(f"this is no document of an updater's states; it holds {', '.join(map(str, content))}")
        if not all(isinstance(content[what], dict) for what in ("states", "kind", "counts")):
            raise TypeError("states, their kind and the counts are dicts")
        plain.check(content["kind"])
        content["parameters"] = {index: _read(each) for index, each in content["parameters"].items()}
        sums = {index: (int(count), total) for index, (count, total) in sums.items()}
        return Loaded(config=content.pop("optimizer"), sums=sums, **content)
    except StatesError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise StatesError(f"this is no document of an updater's states: {error}") from error


def _read(each: Any) -> Described:
    name, shape, dtype = each
    if not isinstance(name, str | None) or not isinstance(dtype, str | None):
        raise TypeError(f"a parameter's name and dtype are texts, not {name!r} and {dtype!r}")
    return Described(name, None if shape is None else tuple(map(int, shape)), dtype)


def fit(
    loaded: Loaded,
    optimizer: Optimizer,
    known: Mapping[Index, Described],
    replaceable: bool = False,
    accumulates: bool = False,
) -> tuple[Loaded, Optimizer | None]:
    """Fits saved states to `optimizer`, without changing it.

    Parameters
    ----------
    loaded : Loaded
    optimizer : Optimizer
        Its `param_dict`, if it has one, lists the parameters: states follow their names.
    known : dict of index to Described
        What else is known of the parameters.
    replaceable : bool
        Whether a saved optimizer of another class may replace it.
    accumulates : bool
        Whether accumulated gradients can be taken over.

    Returns
    -------
    loaded : with the indices that the parameters have here
    made : the saved optimizer with its counts, if it was saved

    Raises StatesError if the states don't fit.
    """
    if loaded.sums and not accumulates:
        raise StatesError(
            "the states were saved between two updates, with the sums of gradients that wait for others: only an"
            " Updater with `accumulate` takes them"
        )
    made = None if loaded.config is None else make_optimizer(loaded.config)
    to: dict[Index, Index] = {}
    if made is None or optimizer.is_like(made):
        own = _own(optimizer, loaded.parameters)
        to = _places(loaded, own)
        loaded = _moved(loaded, to)
        names = optimizer.idx2name if made is None else {}
        _compare(loaded, {**{i: Described(name) for i, name in names.items()}, **known, **own})
    elif not replaceable:
        raise StatesError(
            f"the states are those of {_both(loaded.kind, optimizer.state_kind())}: load them into what was made with"
            " the same optimizer"
        )
    if made is not None:
        for table in (made.idx2name, made.lr_mult, made.wd_mult):
            moved = _by_index(table, to)
            table.clear()
            table.update(moved)
        made.set_counts(loaded.counts)
        return loaded, made
    probe = copy.copy(optimizer)
    probe.lr_scheduler = None  # the optimizer's own
    probe.set_counts(loaded.counts)
    _compare_kinds(loaded, probe.state_kind())
    return loaded, None


def take(
    loaded: Loaded,
    optimizer: Optimizer,
    known: Mapping[Index, Described],
    replaceable: bool = False,
    accumulates: bool = False,
) -> tuple[Loaded, Optimizer]:
    """Fits saved states to `optimizer`, and returns the optimizer to continue with: `optimizer`
    with the saved counts and options, or the saved one. If it raises, nothing has changed."""
    loaded, made = fit(loaded, optimizer, known, replaceable, accumulates)
    if made is None:
        optimizer.set_counts(loaded.counts)
    elif optimizer.is_like(made):
        optimizer.take_over(made)
    else:
        return loaded, made
    return loaded, optimizer


def check(index: Index, saved: Described, weight: Array) -> None:
    """Raises StatesError if a state can't belong to `weight`."""
    wrong = _difference(saved, described(weight))
    if wrong:
        raise StatesError(f"the loaded state of parameter {index!r} is another's: {wrong}")


def _own(optimizer: Optimizer, indices: Iterable[Index]) -> dict[Index, Described]:
    """What an optimizer's `param_dict` says of its parameters, if all indices are numbers."""
    if not all(isinstance(index, int) for index in indices):
        return {}
    return {i: described(p, getattr(p, "name", None)) for i, p in optimizer.param_dict.items() if isinstance(i, int)}


def _compare_kinds(loaded: Loaded, own: Plain) -> None:
    """Raises StatesError if the states are of another kind."""
    narrow = any(p.dtype is None or "16" in p.dtype for p in loaded.parameters.values())
    ignored = {"state_dtype"} | (set() if narrow else {"multi_precision"})  # states are converted
    relevant = [what for what in (*loaded.kind, *own) if what not in ignored]
    wrong = [what for what in dict.fromkeys(relevant) if loaded.kind.get(what) != own.get(what)]
    if wrong and loaded.states:
        shown = [what for what in wrong if what not in ("optimizer", "family")]
        there, here = (_listed({what: kind.get(what) for what in shown}) for kind in (loaded.kind, own))
        raise StatesError(f"the states are those of {_both(loaded.kind, own, there, here)}")


def _both(there: Document, here: Document, theirs: str = "", ours: str = "") -> str:
    """Names two kinds of states; with their families if the optimizers have the same name."""
    names = [kind.get("optimizer") for kind in (there, here)]
    if names[0] == names[1] and there.get("family") != here.get("family"):
        names = [f"{kind.get('optimizer')} of {kind.get('family')}" for kind in (there, here)]
    return f"{names[0]}{theirs}, this is {names[1]}{ours}"


def _listed(options: Document) -> str:
    return " with " * bool(options) + ", ".join(f"{name} {value!r}" for name, value in options.items())


def _places(loaded: Loaded, own: Mapping[Index, Described]) -> dict[Index, Index]:
    """The indices in `own` of the parameters of `loaded`, by their names if all have one."""
    theirs = loaded.parameters
    if not own or not theirs:
        return {}
    if not (_named(theirs) and _named(own)):
        unknown = [index for index in theirs if index not in own]
        lacking = [index for index in own if index not in theirs] if loaded.complete else []
        if unknown or lacking:
            raise StatesError(f"the states are for {counted(len(theirs), 'parameter')}, here are {len(own)}")
        return {}
    here, there = ({each.name: index for index, each in of.items()} for of in (own, theirs))
    added = [name for name in here if name not in there] if loaded.complete else []
    removed = [name for name in there if name not in here]
    if added or removed:
        words = [f"{_names(removed)} of theirs are not here"] * bool(removed)
        words += [f"{_names(added)} are new here"] * bool(added)
        raise StatesError(f"the states are for other parameters: {'; '.join(words)}")
    return {index: here[each.name] for index, each in theirs.items()}


def _named(parameters: Mapping[Index, Described]) -> bool:
    names = {each.name for each in parameters.values()}
    return None not in names and len(names) == len(parameters)


def _names(names: Iterable[str | None]) -> str:
    found = [repr(name) for name in names]
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _moved(loaded: Loaded, to: Mapping[Index, Index]) -> Loaded:
    """`loaded` with other indices. Its counts are numbers, and dicts by index."""
    counts = {w: _by_index(v, to) if isinstance(v, dict) and w != "devices" else v for w, v in loaded.counts.items()}
    if isinstance(loaded.counts.get("devices"), dict):
        devices = loaded.counts["devices"].items()
        counts["devices"] = {d: _by_index(each, to) if isinstance(each, dict) else each for d, each in devices}
    states, parameters, sums = (_by_index(of, to) for of in (loaded.states, loaded.parameters, loaded.sums))
    return replace(loaded, states=states, parameters=parameters, counts=counts, sums=sums)


def _by_index(values: Mapping[Any, Any], to: Mapping[Index, Index]) -> dict[Any, Any]:
    return {to.get(index, index): value for index, value in values.items()}


def _compare(loaded: Loaded, known: Mapping[Index, Described]) -> None:
    """Raises StatesError if a known parameter isn't the one that the state belongs to."""
    wrong = []
    for index, saved in loaded.parameters.items():
        found = _difference(saved, known.get(index, Described()))
        wrong += [f"parameter {saved.name or index!r}: {found}"] * bool(found)
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        shapes = [sorted(str(p) for p in of.values()) for of in (loaded.parameters, known)]
        order = "; they are the same shapes in another order" if shapes[0] == shapes[1] else ""
        raise StatesError(f"the states don't fit the parameters: {'; '.join(wrong[:SHOWN])}{more}{order}")


def _difference(saved: Described, here: Described) -> str:
    """The differences between two parameters, where both are known."""
    words = []
    for what, theirs, ours in zip(Described._fields, saved, here, strict=True):
        if theirs is not None and ours is not None and theirs != ours:
            words.append(f"{what} {theirs!r} in the states, {ours!r} here")
    return ", ".join(words)
