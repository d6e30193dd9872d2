"""What updates an optimizer's tensors: the rules of `experimental.optim`, which are PyTorch's, or
those of `create`.

Both take the parameters by number, in the order of all groups, and a group's options as they stand
in `param_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mxopt.arguments import arguments_of
from mxopt.errors import SYNONYMS, StatesError, UnknownArgumentError, UnknownNameError, nearest
from mxopt.experimental import optim
from mxopt.optimizer import Optimizer as ByName
from mxopt.optimizer import Updater, create, get_updater
from mxopt.parameter import Parameter
from mxopt.state_dtype import as_stored
from mxopt.typing import Array, Plain, State

Options = Plain

# PyTorch's names of the states.
ADAM = {"mean": "exp_avg", "var": "exp_avg_sq", "largest": "max_exp_avg_sq"}
STATES = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam"), ADAM),
    "SGD": {"velocity": "momentum_buffer"},
    "Adamax": ADAM | {"largest": "exp_inf"},
    "Adagrad": {"history": "sum"},
    "Adadelta": {"mean_square": "square_avg", "mean_square_step": "acc_delta"},
    "RMSprop": {"mean_square": "square_avg", "mean": "grad_avg", "velocity": "momentum_buffer"},
    "Rprop": {"previous": "prev"},
    "ASGD": {"average": "ax"},
}
UNCOUNTED = ("SGD",)  # PyTorch keeps no count of its steps


class Rules(Protocol):
    """How an optimizer updates its parameters.

    `defaults` are the options of a group and their values, `add` takes a group's parameters,
    `update` steps those that have a gradient. `state` is what is kept of a parameter, an int "step"
    and arrays and numbers by name, `restore` its opposite.
    """

    defaults: Options

    def add(self, group: Options, weights: Sequence[np.ndarray], names: Sequence[str]) -> None: ...
    def update(self, groups: Sequence[Options], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None: ...
    def state(self, number: int) -> Plain: ...
    def restore(self, groups: Sequence[Options], states: Sequence[Plain]) -> None: ...


def rules_of(name: str, options: Options) -> Rules:
    """The rules that a name means, with these options: experimental's where it has some, else
    `create`'s."""
    kinds = {kind.lower(): kind for kind in STATES}
    if isinstance(name, str) and name.lower() in kinds:
        return OfExperimental(kinds[name.lower()], options)
    if isinstance(name, str) and name.lower() in set(ByName.registry):
        return OfCreate(name, options)
    known = sorted({*kinds, *ByName.registry})
    raise UnknownNameError(f"there is no optimizer {name!r}: {nearest(str(name), known)}")


def number_of(value: Array) -> Any:
    """An option as a number, where a schedule keeps it as a tensor."""
    return value.item() if hasattr(value, "item") else value


class OfExperimental:
    """An optimizer of `experimental.optim`."""

    def __init__(self, kind: str, options: Options) -> None:
        self._kind = kind
        self._names = STATES[kind]
        self._options = {"lr": 1e-3, **options} if kind == "SGD" else options  # PyTorch has a default there
        made = self._made([{"params": []}])
        self._seeds = {"seed": made.seed or 0} if made.state_dtype == "bfloat16" else {}
        self.defaults: Plain = made.defaults | self._seeds
        self._model: optim.Optimizer

    def _made(self, groups: list[Options]) -> optim.Optimizer:
        made: optim.Optimizer = getattr(optim, self._kind)(groups, **self._options)
        return made

    def add(self, group: Options, weights: Sequence[np.ndarray], names: Sequence[str]) -> None:
        known = self.defaults.keys() - self._seeds.keys()
        own = {key: number_of(value) for key, value in group.items() if key in known}
        params = [Parameter(weight, name) for weight, name in zip(weights, names, strict=True)]
        if hasattr(self, "_model"):
            self._model.add_param_group({**own, "params": params})
        else:
            self._model = self._made([{**own, "params": params}])

    def update(self, groups: Sequence[Options], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None:
        self._follow(groups)
        self._model(grads)

    def _follow(self, groups: Sequence[Options]) -> None:
        """Takes over what has been changed in the groups."""
        for mine, theirs in zip(self._model.param_groups, groups, strict=True):
            now = {key: number_of(theirs[key]) for key in self.defaults}
            self._model.seed = now.pop("seed", self._model.seed)
            changed = {key: value for key, value in now.items() if mine[key] != value}
            if changed:
                mine.update(changed)

    def state(self, number: int) -> Plain:
        slot = self._model.slots[number]
        if not slot.step:
            return {}
        uncounted = self._kind in UNCOUNTED and not self._seeds  # which rounding follows
        counted: Plain = {} if uncounted else {"step": slot.step}
        if self._model.carried:
            counted[self._model.carried] = slot.carry
        if self._kind == "ASGD":
            counted["mu"] = 1 / max(1.0, slot.step - self._model.param_groups[slot.group]["t0"])
        return counted | {self._names.get(name, name): array for name, array in slot.arrays.items()}

    def restore(self, groups: Sequence[Options], states: Sequence[Plain]) -> None:
        self._follow(groups)
        ours = {theirs: name for name, theirs in self._names.items()}
        document = self._model.state_dict()
        document["state"] = {}
        for slot, state in zip(self._model.slots, states, strict=True):
            kept = {ours.get(name, name): value for name, value in state.items() if value is not None}
            kept.pop("mu", None)
            if not kept:
                continue
            kept["step"] = int(kept.get("step", 1))
            if self._model.carried:
                kept[self._model.carried] = float(kept.get(self._model.carried, self._model.first_carry))
            document["state"][slot.name] = kept
        self._model.load_state_dict(document)


class OfCreate:
    """Optimizers of `mxopt.create`, one for each group."""

    def __init__(self, name: str, options: Options) -> None:
        self._name = name
        self._updaters = list[Updater]()
        self._numbers = list[list[int]]()
        klass = type(create(name))
        self._arguments = {self._theirs(argument): argument for argument in arguments_of(klass)}
        given = self._translated(options)
        made = create(name, **{self._arguments[key]: value for key, value in given.items()})
        skipped = (
            "param_idx2name", "lr_scheduler", "sym", "param_dict", "begin_num_update", "rescale_grad", "state_dtype",
        )  # fmt: skip
        self._state_dtype = made.state_dtype
        names = {theirs: argument for theirs, argument in self._arguments.items() if argument not in skipped}
        self.defaults: Plain = {theirs: self._get(made, argument) for theirs, argument in names.items()}

    @staticmethod
    def _theirs(argument: str) -> str:
        return {"learning_rate": "lr", "wd": "weight_decay"}.get(argument, argument)

    def _translated(self, options: Options) -> Options:
        """Options under the names that groups have, from PyTorch's names and from MXNet's."""
        found: Options = {}
        for key, value in options.items():
            if key == "betas" and {"beta1", "beta2"} <= self._arguments.keys():
                found["beta1"], found["beta2"] = value
                continue
            same = [key, *(other for group in SYNONYMS if key in group for other in sorted(group))]
            names = [self._theirs(other) for other in same if self._theirs(other) in self._arguments]
            if not names:
                raise UnknownArgumentError(f"{self._name} has no option {key!r}: {nearest(key, self._arguments)}")
            found[names[0]] = value
        return found

    @staticmethod
    def _attribute(argument: str) -> str:
        return {"learning_rate": "lr"}.get(argument, argument)

    def _get(self, optimizer: ByName, argument: str) -> Any:
        return getattr(optimizer, self._attribute(argument))

    def add(self, group: Options, weights: Sequence[np.ndarray], names: Sequence[str]) -> None:
        options = {self._arguments[key]: number_of(group[key]) for key in self.defaults}
        updater = get_updater(create(self._name, **options, state_dtype=self._state_dtype))
        first = sum(map(len, self._numbers))
        self._numbers.append(list(range(first, first + len(weights))))
        self._updaters.append(updater)
        self._weights = [*getattr(self, "_weights", []), *weights]

    def update(self, groups: Sequence[Options], weights: Sequence[np.ndarray], grads: Sequence[Array]) -> None:
        self._follow(groups)
        self._weights = list(weights)
        for updater, numbers in zip(self._updaters, self._numbers, strict=True):
            given = [n for n in numbers if grads[n] is not None]
            if given:
                updater(given, [grads[n] for n in given], [weights[n] for n in given])

    def _follow(self, groups: Sequence[Options]) -> None:
        for updater, group in zip(self._updaters, groups, strict=True):
            for key in self.defaults:
                attribute, value = self._attribute(self._arguments[key]), number_of(group[key])
                if getattr(updater.optimizer, attribute) != value:
                    setattr(updater.optimizer, attribute, value)

    def _updater(self, number: int) -> Updater:
        return next(u for u, numbers in zip(self._updaters, self._numbers, strict=True) if number in numbers)

    def state(self, number: int) -> Plain:
        updater = self._updater(number)
        steps = updater.optimizer.count(number)
        if steps is None or number not in updater.states:
            return {}
        return {"step": steps, **self._named(updater.optimizer, number, updater.states[number])}

    def _named(self, optimizer: ByName, number: int, state: State) -> dict[str, np.ndarray]:
        """The arrays of a state by name: the rule's names, and "master"."""
        found: dict[str, np.ndarray] = {}
        if optimizer.uses_master(self._weights[number]):
            state, found["master"] = optimizer.split(state)
        arrays, names = _flat(state), getattr(getattr(optimizer, "rule", None), "states", ())
        names = names if len(names) == len(arrays) else [f"state_{k}" for k in range(len(arrays))]
        return dict(zip(names, arrays, strict=True)) | found

    def restore(self, groups: Sequence[Options], states: Sequence[Plain]) -> None:
        self._follow(groups)
        made: list[tuple[Updater, int, int, Any]] = []
        for number, state in enumerate(states):
            updater = self._updater(number)
            if not state:
                continue
            new = updater.optimizer.create_state_multi_precision(number, self._weights[number])
            arrays = self._named(updater.optimizer, number, new)
            given = {name: np.asarray(value) for name, value in state.items() if name != "step"}
            given = {name: as_stored(x, arrays[name].dtype) if name in arrays else x for name, x in given.items()}
            for name in sorted(arrays.keys() | given.keys()):
                mine, theirs = arrays.get(name), given.get(name)
                if mine is None or theirs is None or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                    raise StatesError(
                        f"parameter {number}: {name} is {_described(theirs)}, {self._name} needs {_described(mine)}"
                    )
            for name, array in arrays.items():
                array[...] = given[name]
            made.append((updater, number, int(state.get("step", 1)), new))
        for updater, numbers in zip(self._updaters, self._numbers, strict=True):
            for number in numbers:
                updater.states.pop(number, None)
                updater.states_synced.pop(number, None)
        for updater, number, steps, new in made:
            updater.states[number] = new
            updater.optimizer.set_count(number, steps)
            updater.optimizer.num_update = max(updater.optimizer.num_update, steps)


def _flat(state: State) -> list[np.ndarray]:
    if state is None:
        return []
    return [array for part in state for array in _flat(part)] if isinstance(state, tuple | list) else [state]


def _described(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"
