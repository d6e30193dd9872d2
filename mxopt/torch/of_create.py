"""The backend that updates with the optimizers of `mxopt.create`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mxopt.arguments import arguments_of, attribute_of
from mxopt.errors import SYNONYMS, ArgumentError, StatesError, UnknownArgumentError, nearest
from mxopt.experimental import optim
from mxopt.experimental.optim.groups import check_keys
from mxopt.optimizer import Optimizer, Updater, create, get_updater
from mxopt.state_dtype import as_stored
from mxopt.torch.of_experimental import count_of, number_of, with_master
from mxopt.typing import Array, Plain, State

# Arguments that aren't options of a group: PyTorch has other ways for these, or all groups share
# one.
NO_OPTIONS = (
    "param_idx2name", "lr_scheduler", "sym", "param_dict", "begin_num_update", "rescale_grad", "state_dtype",
)  # fmt: skip
NAMES = {"learning_rate": "lr", "wd": "weight_decay", "epsilon": "eps"}  # PyTorch's
PAIR = ("beta1", "beta2")  # one option in PyTorch, "betas"


class OfCreate:
    """Optimizers of `mxopt.create`, one for each group."""

    def __init__(self, name: str, options: Plain) -> None:
        self._name = name
        self._updaters = list[Updater]()
        self._known = list[Plain]()  # each group's options, as its updater has them
        self._numbers = list[range]()  # each group's parameters
        self._weights: list[np.ndarray] = []
        arguments = [a for a in arguments_of(type(create(name))) if a not in NO_OPTIONS]
        pair = set(PAIR) <= set(arguments)
        self._arguments: dict[str, tuple[str, ...]] = {"betas": PAIR} if pair else {}
        self._arguments |= {NAMES.get(a, a): (a,) for a in arguments if not (pair and a in PAIR)}
        self._narrow = {"state_dtype": options["state_dtype"]} if "state_dtype" in options else {}
        self.defaults: Plain = self._options_of(create(name))
        given = self._renamed({key: value for key, value in options.items() if key not in self._narrow})
        unknown = [key for key in given if key not in self._arguments]
        if unknown:
            raise UnknownArgumentError(f"{name} has no option {unknown[0]!r}: {nearest(unknown[0], self._arguments)}")
        self.defaults = self._options_of(create(name, **self._values(given), **self._narrow))

    def _options_of(self, made: Optimizer) -> Plain:
        kind = type(made)
        values = {key: [getattr(made, attribute_of(kind, a)) for a in names] for key, names in self._arguments.items()}
        return {key: tuple(both) if len(both) > 1 else both[0] for key, both in values.items()}

    def group(self, given: Plain, whose: str) -> Plain:
        renamed = self._renamed(given)
        check_keys(renamed, {*self._arguments, "param_names"}, optim.Optimizer.names, whose)
        return renamed

    def _renamed(self, given: Plain) -> Plain:
        """Options under the names that groups use; they may be given by PyTorch's or MXNet's."""
        found: Plain = {}
        for key, value in given.items():
            if key in PAIR and "betas" in self._arguments:
                both = found.get("betas") or self.defaults["betas"]
                found["betas"] = tuple(value if a == key else b for a, b in zip(PAIR, both, strict=True))
                continue
            same = [key, *(other for group in SYNONYMS if key in group for other in sorted(group))]
            found[next((other for other in same if other in self._arguments), key)] = value
        return found

    def _values(self, group: Plain) -> Plain:
        """A group's options as arguments of the constructor."""
        found: Plain = {}
        for key, names in self._arguments.items():
            if key in group:
                value = number_of(group[key])
                found |= dict(zip(names, value if names == PAIR else (value,), strict=True))
        return found

    def add(self, group: Plain, weights: Sequence[np.ndarray], names: Sequence[str]) -> None:
        updater = get_updater(create(self._name, **self._values(group), **self._narrow))
        self._known.append({key: number_of(group[key]) for key in self.defaults})
        self._numbers.append(range(len(self._weights), len(self._weights) + len(weights)))
        self._updaters.append(updater)
        self._weights = [*self._weights, *weights]

    def update(self, groups: Sequence[Plain], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None:
        self._follow(groups)
        for updater, numbers in zip(self._updaters, self._numbers, strict=True):
            given = [n for n in numbers if grads[n] is not None]
            if given:
                updater(given, [grads[n] for n in given], [weights[n] for n in given])

    def repeat(self, groups: Sequence[Plain], places: Sequence[int], first: Iterable[object]) -> bool:
        return False

    def _follow(self, groups: Sequence[Plain]) -> None:
        """Takes over what has been changed in the groups."""
        for number, (updater, known, group) in enumerate(zip(self._updaters, self._known, groups, strict=True)):
            now = {key: number_of(group[key]) for key in self.defaults}
            if now == known:
                continue
            unset = [key for key, value in now.items() if value is None and self.defaults[key] is not None]
            if unset:
                raise ArgumentError(f"{self._name}, group {number}: {unset[0]} must be a number, got None")
            values = self._values(now)
            create(self._name, **values, **self._narrow)  # raises for values that aren't allowed
            for argument, value in values.items():
                attribute = attribute_of(type(updater.optimizer), argument)
                if getattr(updater.optimizer, attribute) != value:
                    setattr(updater.optimizer, attribute, value)
            self._known[number] = now

    def _updater(self, number: int) -> Updater:
        return next(u for u, numbers in zip(self._updaters, self._numbers, strict=True) if number in numbers)

    def state(self, number: int) -> Plain:
        updater = self._updater(number)
        steps = updater.optimizer.count(number)
        if steps is None or number not in updater.states:
            return {}
        numbers = {what: of[number] for what, of in _counted(updater.optimizer).items() if number in of}
        return {"step": steps, **numbers, **self._named(updater.optimizer, number, updater.states[number])}

    def number(self, number: int, name: str) -> float:
        optimizer = self._updater(number).optimizer
        return optimizer.count(number) or 0 if name == "step" else _counted(optimizer)[name][number]

    def set_number(self, number: int, name: str, value: float) -> None:
        optimizer = self._updater(number).optimizer
        if name == "step":
            optimizer.set_count(number, count_of(value, str(number)))
        else:
            optimizer.set_counts({**optimizer.get_counts(), name: {**_counted(optimizer)[name], number: value}})

    def _named(self, optimizer: Optimizer, number: int, state: object) -> dict[str, np.ndarray]:
        """The arrays of a state, by the rule's names and "master"."""
        found: dict[str, np.ndarray] = {}
        if optimizer.uses_master(self._weights[number]):
            state, found["master"] = optimizer.split(state)
        arrays, names = _flat(state), getattr(getattr(optimizer, "rule", None), "states", ())
        names = names if len(names) == len(arrays) else [f"state_{k}" for k in range(len(arrays))]
        return dict(zip(names, arrays, strict=True)) | found

    def restore(self, groups: Sequence[Plain], states: Sequence[Plain]) -> None:
        self._follow(groups)
        made: list[tuple[dict[Any, Any], dict[int, int]]] = [({}, {}) for _ in self._updaters]
        for updater, numbers, (new, steps) in zip(self._updaters, self._numbers, made, strict=True):
            for number in numbers:
                if states[number]:
                    new[number] = self._fitting(updater.optimizer, number, states[number])
                    steps[number] = count_of(states[number].get("step", 1), str(number))
        for updater, (new, steps) in zip(self._updaters, made, strict=True):
            optimizer = updater.optimizer
            updater.states, updater.states_synced = new, {}
            counted: Plain = {"num_update": max(steps.values(), default=0), "devices": {0: steps}}
            for what in _counted(optimizer):
                counted[what] = {number: float(states[number][what]) for number in steps if what in states[number]}
            optimizer.set_counts({**optimizer.get_counts(), **counted})

    def _fitting(self, optimizer: Optimizer, number: int, state: Plain) -> Any:
        """A saved state, copied into new arrays. Raises StatesError if it doesn't fit."""
        weight = self._weights[number]
        if optimizer.uses_master(weight):
            state = with_master(state, weight)
        new = optimizer.create_state_multi_precision(number, weight)
        arrays = self._named(optimizer, number, new)
        numbers = {"step", *_counted(optimizer)}
        given = {name: np.asarray(value) for name, value in state.items() if name not in numbers}
        given = {name: as_stored(x, arrays[name].dtype) if name in arrays else x for name, x in given.items()}
        for name in sorted(arrays.keys() | given.keys()):
            mine, theirs = arrays.get(name), given.get(name)
            if mine is None or theirs is None or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                raise StatesError(
                    f"the states don't fit: parameter {number}: {name} is {_described(theirs)}, {self._name} needs"
                    f" {_described(mine)}"
                )
        for name, array in arrays.items():
            array[...] = given[name]
        return new


def _counted(optimizer: Optimizer) -> dict[str, dict[int, float]]:
    """What an optimizer keeps for each parameter besides its update count, such as LARS's last
    rate."""
    return {what: of for what, of in optimizer.get_counts().items() if isinstance(of, dict) and what != "devices"}


def _flat(state: State) -> list[np.ndarray]:
    if state is None:
        return []
    return [array for part in state for array in _flat(part)] if isinstance(state, tuple | list) else [state]


def _described(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"
